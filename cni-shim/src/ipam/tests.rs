//! Sections of configurations, and a plugin that is a script.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::error::{ADDRESS_IN_USE, DELEGATE, INVALID_ENVIRONMENT};

fn config(more: &Value) -> Config {
    let mut document = json!({ "cniVersion": "1.0.0", "name": "n", "type": "podwire" });
    for (key, value) in more.as_object().expect("an object") {
        document[key] = value.clone();
    }
    Config::read(document.to_string().as_bytes()).expect("a configuration")
}

fn asked(args: &str, more: &Value) -> Result<Requested, Failure> {
    requested(&Environment::of_test(args, ""), &config(more))
}

#[test]
fn the_section_names_a_plugin_or_none() {
    let named = |ipam: Value| {
        delegated_type(&config(&json!({ "ipam": ipam }))).map(|name| name.map(str::to_owned))
    };
    assert_eq!(delegated_type(&config(&json!({}))), Ok(None));
    for none in [Value::Null, json!({}), json!({ "type": "" })] {
        assert_eq!(named(none), Ok(None));
    }
    assert_eq!(named(json!({ "type": "host-local", "ranges": [] })), Ok(Some("host-local".into())));
    for wrong in [
        json!("host-local"),
        json!({ "ranges": [] }),
        json!({ "type": 1 }),
        json!({ "type": "", "ranges": [] }),
        json!({ "type": "../host-local" }),
        json!({ "type": ".." }),
        json!({ "type": "podwire" }),
    ] {
        assert_eq!(named(wrong.clone()).expect_err("refused").code, INVALID_CONFIG, "{wrong}");
    }
    let error = named(json!({ "type": "dhcp" })).expect_err("refused");
    assert_eq!(error.code, UNSUPPORTED_FIELD);
    assert!(error.details.contains("no broadcast domain"), "{error}");
}

#[test]
fn what_is_asked_for_comes_from_the_first_place_that_has_it() {
    let args = "IP=10.0.0.9;MAC=02:00:00:00:00:09";
    let mut more = json!({});
    let first = |more: &Value| {
        let requested = asked(args, more).expect("read");
        (requested.addresses[0].to_string(), requested.mac.expect("a MAC")[5])
    };
    assert_eq!(first(&more), ("10.0.0.9".into(), 9));
    more["args"] = json!({ "cni": { "ips": ["10.0.0.8/24"], "mac": "02:00:00:00:00:08" } });
    assert_eq!(first(&more), ("10.0.0.8".into(), 8));
    more["runtimeConfig"] = json!({ "ips": [], "mac": "" });
    assert_eq!(first(&more), ("10.0.0.8".into(), 8));
    more["runtimeConfig"] = json!({ "ips": ["10.0.0.7", "fd00::7"], "mac": "02-00-00-00-00-07" });
    assert_eq!(first(&more), ("10.0.0.7".into(), 7));
    assert_eq!(asked("", &json!({})), Ok(Requested::default()));
    assert_eq!(asked("IP=;MAC=", &json!({})), Ok(Requested::default()));
}

#[test]
fn what_no_pod_can_have_is_refused_with_the_place() {
    for (args, more, code, why) in [
        ("IP=10.0.0.300", json!({}), INVALID_ENVIRONMENT, "IP in CNI_ARGS"),
        ("IP=10.0.0.3,10.0.0.4", json!({}), INVALID_ENVIRONMENT, "10.0.0.3 is of the same family"),
        ("MAC=02:00:00:00:00", json!({}), INVALID_ENVIRONMENT, "no MAC address"),
        ("MAC=02:00:00:00:00:+5", json!({}), INVALID_ENVIRONMENT, "no MAC address"),
        ("MAC=03:00:00:00:00:05", json!({}), INVALID_ENVIRONMENT, "a group of interfaces"),
        ("MAC=ff:ff:ff:ff:ff:ff", json!({}), INVALID_ENVIRONMENT, "a group of interfaces"),
        ("", json!({ "runtimeConfig": { "mac": "00:00:00:00:00:00" } }), INVALID_CONFIG, "zeros"),
        ("", json!({ "runtimeConfig": { "mac": 7 } }), INVALID_CONFIG, "it is a text"),
        ("", json!({ "runtimeConfig": { "ips": "10.0.0.5" } }), INVALID_CONFIG, "a list of texts"),
        ("", json!({ "args": { "cni": { "ips": [5] } } }), INVALID_CONFIG, "\"args.cni.ips\""),
    ] {
        let error = asked(args, &more).expect_err(why);
        assert_eq!(error.code, code, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    let gateway = crate::result::mac_text(dataplane_core::abi::config::GATEWAY_MAC.octets);
    let error = asked(&format!("MAC={gateway}"), &json!({})).expect_err("the gateway's");
    assert!(error.details.contains("the gateway's MAC"), "{error}");
}

#[test]
fn addresses_are_the_business_of_a_delegated_plugin() {
    let more = json!({ "ipam": { "type": "static" }, "runtimeConfig": { "ips": ["x"] } });
    assert_eq!(asked("IP=y", &more), Ok(Requested::default()));
}

/// Writes down how it is called, and answers with the content of its file `answer`.
const SCRIPT: &str = r#"#!/bin/sh
cd "${0%/*}"
{ echo "$CNI_COMMAND"; cat; echo; } >> calls
cat answer 2>&1
"#;

type Verb = fn(&Environment, &Config) -> Result<(), Failure>;

fn script(directory: &Path, text: &str) -> (Environment, Config) {
    let plugin = directory.join("given");
    delegate::write_plugin(&plugin, text);
    let path = format!("/nonexistent:{}", directory.display());
    let config = config(&json!({ "ipam": { "type": "given", "k": 1 } }));
    (Environment::of_test("K=v", &path), config)
}

fn lease_of(ipam: &Ipam, refuse: bool) -> (Result<Given, Failure>, Vec<Source>, bool) {
    let asked = std::cell::RefCell::new(Vec::new());
    let ask = |source: Source| {
        asked.borrow_mut().push(source.clone());
        match source {
            Source::Leased(_) if refuse => Err(failure(ADDRESS_IN_USE, "in use", "")),
            Source::Leased(addresses) => Ok(Added { addresses, mtu: 1450, near: None }),
            Source::Pools(_) | Source::Announced(_) => {
                Ok(Added { addresses: vec![], mtu: 1450, near: None })
            }
        }
    };
    let mut leased = false;
    let first = ask(ipam.first_source().expect("a question")).expect("an answer");
    let given = ipam.obtain(first, ask, &mut leased);
    (given, asked.into_inner(), leased)
}

#[test]
fn a_delegated_plugin_gets_what_we_got_and_the_agent_hears_of_it_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let (environment, config) = script(directory.path(), SCRIPT);
    let answer = json!({
        "cniVersion": "1.0.0",
        "ips": [{ "address": "10.9.0.5/16" }],
        "dns": { "domain": "d" },
    });
    fs::write(directory.path().join("answer"), answer.to_string()).expect("written");
    let ipam = Ipam::new(&environment, &config, &Requested::default()).expect("found");
    let (given, asked, leased) = lease_of(&ipam, false);
    let given = given.expect("a lease");
    assert!(leased);
    assert_eq!(given.addresses[0].to_string(), "10.9.0.5");
    assert_eq!(given.routes[0].dst.to_string(), "0.0.0.0/0");
    assert_eq!(given.dns["domain"], "d");
    let [Source::Announced(delegation), Source::Leased(_)] = asked.as_slice() else {
        panic!("asked {asked:?}")
    };
    assert_eq!(delegation.plugin, directory.path().join("given"));
    assert_eq!(delegation.args, "K=v");
    assert_eq!(delegation.config["ipam"]["k"], 1);
    ipam.give_back().expect("given back");
    check(&environment, &config).expect("checked");
    let text = String::from_utf8(config.text.clone()).expect("text");
    let calls = fs::read_to_string(directory.path().join("calls")).expect("called");
    assert_eq!(calls, format!("ADD\n{text}\nDEL\n{text}\nCHECK\n{text}\n"));
}

#[test]
fn verbs_reach_a_delegated_plugin_and_its_errors_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let script_text = r#"#!/bin/sh
echo "{\"cniVersion\":\"1.0.0\",\"code\":77,\"msg\":\"$CNI_COMMAND refused\"}"; exit 1
"#;
    let (environment, config) = script(directory.path(), script_text);
    let verbs: [(&str, Verb); 3] = [("CHECK", check), ("GC", gc), ("STATUS", status)];
    for (verb, pass_on) in verbs {
        let error = pass_on(&environment, &config).expect_err(verb);
        assert_eq!(error, failure(77, format!("{verb} refused"), ""));
    }
    let ipam = Ipam::new(&environment, &config, &Requested::default()).expect("found");
    let (given, asked, leased) = lease_of(&ipam, false);
    assert_eq!(given.expect_err("refused").message, "ADD refused");
    // A plugin that fails may have left something.
    assert!(leased && asked.len() == 1);
    assert_eq!(ipam.give_back().expect_err("refused").message, "DEL refused");
}

#[test]
fn a_plugin_that_is_missing_or_babbles_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let (environment, config) = script(directory.path(), "#!/bin/sh\necho babble\n");
    let ipam = Ipam::new(&environment, &config, &Requested::default()).expect("found");
    let (given, _, _) = lease_of(&ipam, false);
    let error = given.expect_err("no result");
    assert!(error.code == DELEGATE && error.message.contains("/given"), "{error}");

    let nowhere = Environment::of_test("", "/nonexistent:relative");
    let error = of_del(&nowhere, &config).expect_err("missing");
    assert_eq!(error.code, DELEGATE);
    assert!(error.details.contains("CNI_PATH=/nonexistent:relative"), "{error}");
    let error = of_del(&Environment::default(), &config).expect_err("no path");
    assert_eq!(error.code, INVALID_ENVIRONMENT);
}

#[test]
fn only_add_and_status_mind_a_section_that_cannot_work() {
    for ipam in [json!({ "type": "dhcp" }), json!(7), json!({ "type": "podwire" })] {
        let config = config(&json!({ "ipam": ipam }));
        let ipam = of_del(&Environment::default(), &config).expect("nothing to give back");
        assert!(matches!(ipam, Ipam::Pools(_)));
        check(&Environment::default(), &config).expect("nothing to check");
        gc(&Environment::default(), &config).expect("nothing to collect");
        status(&Environment::default(), &config).expect_err("no ADD would work");
    }
}
