//! CHECK: content after ADD, and not when something is missing.

use serde_json::{Value, json};

use super::{ALL_KINDS, Check, INTERFACE, must, reference, should};
use crate::bench::{Bench, Container, IFNAME};
use crate::kernel;
use crate::stop::{Outcome, ensure, not_applicable};

const CHECK: &str = "2 CHECK";

pub(super) const CHECKS: &[Check] = &[
    must("check/after-add", CHECK, "CHECK succeeds right after ADD", after_add)
        .since("0.4.0")
        .each_version(),
    must("check/no-output", "0.4.0 CHECK", "CHECK prints nothing when it succeeds", no_output)
        .since("0.4.0"),
    must("check/prev-result-address", CHECK, "an address of prevResult must be there", |bench| {
        consults(bench, other_address)
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    must("check/prev-result-interface", CHECK, "an interface of prevResult must fit", |bench| {
        consults(bench, other_mac)
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    must(
        "check/later-plugins",
        CHECK,
        "CHECK allows a route that a later plugin has added",
        later_plugins,
    )
    .kinds(INTERFACE)
    .since("0.4.0"),
    should("check/interface-missing", CHECK, "CHECK fails without CNI_IFNAME", |bench| {
        notices(bench, &["link", "delete", IFNAME])
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    should("check/address-missing", CHECK, "CHECK fails without an address", address_missing)
        .kinds(INTERFACE)
        .since("0.4.0"),
    should("check/route-missing", CHECK, "CHECK fails without a route", route_missing)
        .kinds(INTERFACE)
        .since("0.4.0"),
    should("check/interface-down", CHECK, "CHECK fails if CNI_IFNAME is down", |bench| {
        notices(bench, &["link", "set", IFNAME, "down"])
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    should("check/mac-changed", CHECK, "CHECK fails if the MAC is another one", |bench| {
        notices(bench, &["link", "set", IFNAME, "address", "02:00:00:00:00:77"])
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    should("check/namespace-gone", CHECK, "CHECK fails when the namespace is gone", |bench| {
        let (container, result) = added(bench)?;
        container.namespace.delete()?;
        bench.check(&container, &result)?.failed().map(drop)
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    should("check/error-document", "5 Error", "a CHECK that fails prints an error", |bench| {
        let (container, result) = added(bench)?;
        container.namespace.ip(&["link", "delete", IFNAME])?;
        let reply = bench.check(&container, &result)?;
        reply.failed()?;
        let error = reply.object()?;
        ensure(error["code"].is_u64() && error["msg"].is_string(), || format!("it is {error}"))
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    reference("check/without-prev-result", CHECK, "CHECK without prevResult fails", |bench| {
        let (container, _) = added(bench)?;
        bench.run(bench.on("CHECK", &container))?.failed().map(drop)
    })
    .kinds(INTERFACE)
    .since("0.4.0"),
    reference(
        "check/old-version",
        "Released versions",
        "CHECK before 0.4.0 gives code 1",
        |bench| {
            let container = bench.container()?;
            let result = bench.add(&container)?;
            bench.check(&container, &result)?.failed_with(&[1]).map(drop)
        },
    )
    .kinds(ALL_KINDS)
    .until("0.3.1"),
];

type Added = (std::sync::Arc<Container>, Value);

fn added(bench: &Bench<'_>) -> Outcome<Added> {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    Ok((container, result))
}

/// As [`added`]; a CHECK has succeeded, so that it can be seen to fail.
fn well(bench: &Bench<'_>) -> Outcome<Added> {
    let (container, result) = added(bench)?;
    bench.check(&container, &result)?.succeeded()?;
    Ok((container, result))
}

fn after_add(bench: &Bench<'_>) -> Outcome {
    well(bench).map(drop)
}

fn no_output(bench: &Bench<'_>) -> Outcome {
    let (container, result) = added(bench)?;
    let reply = bench.check(&container, &result)?;
    reply.succeeded()?;
    ensure(reply.stdout.trim().is_empty(), || format!("it prints {}", reply.stdout))
}

fn notices(bench: &Bench<'_>, damage: &[&str]) -> Outcome {
    let (container, result) = well(bench)?;
    container.namespace.ip(damage)?;
    bench.check(&container, &result)?.failed().map(drop)
}

fn consults(bench: &Bench<'_>, change: fn(&mut Value) -> bool) -> Outcome {
    let (container, mut result) = well(bench)?;
    if !change(&mut result) {
        return not_applicable("the result has none");
    }
    bench.check(&container, &result)?.failed().map(drop)
}

fn other_address(result: &mut Value) -> bool {
    let Some(ip) = result["ips"].as_array_mut().and_then(|ips| ips.first_mut()) else {
        return false;
    };
    let is_ipv6 = ip["address"].as_str().is_some_and(|address| address.contains(':'));
    ip["address"] = if is_ipv6 { "2001:db8::7/64" } else { "192.0.2.7/24" }.into();
    true
}

fn other_mac(result: &mut Value) -> bool {
    let interfaces = result["interfaces"].as_array_mut().into_iter().flatten();
    let mut own = interfaces.filter(|interface| interface["name"] == IFNAME);
    let Some(interface) = own.find(|interface| interface["mac"].is_string()) else { return false };
    interface["mac"] = "02:00:00:00:00:77".into();
    true
}

fn later_plugins(bench: &Bench<'_>) -> Outcome {
    let (container, mut result) = well(bench)?;
    let Some(link) = kernel::link(&container.namespace, IFNAME)? else {
        return not_applicable("no interface");
    };
    let is_ipv4 = link.global().iter().any(|address| address.addr().is_ipv4());
    let destination = if is_ipv4 { "198.51.100.0/24" } else { "2001:db8:51::/48" };
    container.namespace.ip(&["route", "add", destination, "dev", IFNAME])?;
    if !result["routes"].is_array() {
        result["routes"] = json!([]);
    }
    if let Some(routes) = result["routes"].as_array_mut() {
        routes.push(json!({ "dst": destination }));
    }
    bench.check(&container, &result)?.succeeded()
}

fn address_missing(bench: &Bench<'_>) -> Outcome {
    let (container, result) = well(bench)?;
    let Some(address) = super::result::addresses(&result)?.into_iter().next() else {
        return not_applicable("the network has no addresses");
    };
    container.namespace.ip(&["address", "delete", &address.to_string(), "dev", IFNAME])?;
    bench.check(&container, &result)?.failed().map(drop)
}

fn route_missing(bench: &Bench<'_>) -> Outcome {
    let (container, result) = well(bench)?;
    let route = result["routes"].as_array().into_iter().flatten().find_map(|r| r["dst"].as_str());
    let Some(destination) = route else { return not_applicable("the result has no routes") };
    let family = if destination.contains(':') { "-6" } else { "-4" };
    container.namespace.ip(&[family, "route", "delete", destination])?;
    bench.check(&container, &result)?.failed().map(drop)
}
