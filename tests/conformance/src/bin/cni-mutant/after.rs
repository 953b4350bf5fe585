//! Rules that are broken when the real plugin has run.

use anyhow::Result;
use serde_json::{Value, json};

use crate::call::{Call, Reply, litter_host};

/// Breaks a rule.
pub(crate) fn after(rule: &str, call: &Call, reply: &mut Reply) -> Result<()> {
    if reply.failed {
        error(rule, reply);
    }
    match call.verb() {
        "VERSION" => version(rule, reply),
        "ADD" if reply.failed => failed_add(rule, call, reply)?,
        "ADD" => {
            add(rule, call, reply);
            reply.edit(|result| interfaces(rule, result));
            reply.edit(|result| addresses(rule, call.version(), result));
            match rule {
                "noise-before" => reply.stdout.insert_str(0, "adding...\n"),
                "noise-behind" => reply.stdout.push_str("\n{\"done\": true}\n"),
                _ => {}
            }
        }
        "CHECK" if rule == "check-prints" => reply.stdout.push_str("{}"),
        "GC" if rule == "gc-prints" => reply.stdout.push_str("{\"removed\": 0}"),
        "DEL" if rule == "del-error-ignored" => *reply = Reply::success(),
        "GC" if rule == "gc-error-ignored" => *reply = Reply::success(),
        "STATUS" if rule == "status-error-ignored" => *reply = Reply::success(),
        _ => {}
    }
    Ok(())
}

fn error(rule: &str, reply: &mut Reply) {
    match rule {
        "error-exits-0" => reply.failed = false,
        "error-on-stderr" => reply.stderr = std::mem::take(&mut reply.stdout),
        "missing-other-code" if reply.code() == 4 => reply.edit(|e| e["code"] = 7.into()),
        "missing-not-named" if reply.code() == 4 => reply.edit(|e| e["msg"] = "missing".into()),
        _ => reply.edit(|document| {
            let Some(error) = document.as_object_mut() else { return };
            match rule {
                "error-without-code" => drop(error.remove("code")),
                "error-reserved-code" => drop(error.insert("code".into(), 42.into())),
                "error-without-message" => drop(error.remove("msg")),
                "error-details-object" => drop(error.insert("details".into(), json!({"a": 1}))),
                "error-without-version" => drop(error.remove("cniVersion")),
                _ => {}
            }
        }),
    }
}

fn version(rule: &str, reply: &mut Reply) {
    reply.edit(|answer| {
        let Some(answer) = answer.as_object_mut() else { return };
        match rule {
            "version-without-version" => drop(answer.remove("cniVersion")),
            "version-fixed" => drop(answer.insert("cniVersion".into(), "1.1.0".into())),
            "version-without-list" => drop(answer.remove("supportedVersions")),
            _ => {}
        }
    });
}

fn failed_add(rule: &str, call: &Call, reply: &mut Reply) -> Result<()> {
    match rule {
        "failed-add-leaves-interface" => {
            call.ip(&["link", "add", "left0", "type", "veth", "peer", "name", "left1"]);
        }
        "failed-add-litters" => litter_host(),
        "failed-add-keeps-address" => {
            let id = format!("{}-leak", call.env("CNI_CONTAINERID"));
            let mut leak = call.with(&[("CNI_CONTAINERID", &id)]);
            leak.edit(|config| config["cniVersion"] = "1.0.0".into());
            leak.execute("/usr/lib/cni/host-local".as_ref(), &leak.input)?;
        }
        "failed-add-accepted" => {
            *reply = Reply::result(&json!({"cniVersion": call.version(), "dns": {}}));
        }
        _ => {}
    }
    Ok(())
}

/// What is wrong in the container, or in the result as a whole.
fn add(rule: &str, call: &Call, reply: &mut Reply) {
    let ifname = call.env("CNI_IFNAME");
    match rule {
        "version-promises-more" if call.version() == "0.3.0" => {
            *reply = Reply::error(call.version(), 100, "not in this version");
        }
        "add-leaves-it-down" => drop(call.ip(&["link", "set", ifname, "down"])),
        "add-makes-another" => {
            call.ip(&["link", "add", "more0", "type", "veth", "peer", "name", "more1"]);
        }
        "delegate-stderr-lost" => reply.stderr.clear(),
        _ => reply.edit(|result| match rule {
            "result-other-version" => {
                let other = if call.version() == "0.4.0" { "0.3.1" } else { "0.4.0" };
                result["cniVersion"] = other.into();
            }
            "result-bad-dns" => result["dns"] = json!({"nameservers": "192.0.2.53"}),
            "chain-drops-dns" => drop(result.as_object_mut().map(|all| all.remove("dns"))),
            "chain-drops-interfaces" => result["interfaces"] = json!([]),
            "result-has-interfaces" => result["interfaces"] = json!([{"name": "eth0"}]),
            "result-bad-route" => result["routes"] = json!([{"dst": "default"}]),
            "result-invents-route" => result["routes"] = json!([{"dst": "198.51.100.0/24"}]),
            "result-without-routes" => result["routes"] = json!([]),
            "result-newer-keys" => result["interfaces"][2]["mtu"] = 1500.into(),
            _ => {}
        }),
    }
}

/// The bridge, its port, and the container's interface, in this order.
fn interfaces(rule: &str, result: &mut Value) {
    let Some(all) = result["interfaces"].as_array_mut().filter(|all| all.len() == 3) else {
        return;
    };
    match rule {
        "result-without-interface" => drop(all.remove(2)),
        "result-without-sandbox" => {
            all[2].as_object_mut().map(|interface| interface.remove("sandbox"));
        }
        "result-other-mac" => all[2]["mac"] = "02:00:00:00:00:01".into(),
        "result-other-mtu" => all[2]["mtu"] = 9999.into(),
        "result-invents-host-interface" => all.push(json!({"name": "invented0"})),
        "result-hides-host-interface" => drop(all.remove(1)),
        _ => {}
    }
}

fn addresses(rule: &str, version: &str, result: &mut Value) {
    let Some(ips) = result["ips"].as_array_mut() else { return };
    if rule == "result-without-ips" {
        ips.clear();
    }
    for ip in ips {
        let address = ip["address"].as_str().unwrap_or_default().to_owned();
        let bare = address.split('/').next().unwrap_or_default();
        match rule {
            "result-same-address" => ip["address"] = "10.99.0.2/29".into(),
            "result-without-mask" => ip["address"] = bare.into(),
            "result-other-mask" => ip["address"] = format!("{bare}/32").into(),
            "result-other-index" | "result-has-index" => ip["interface"] = 0.into(),
            "result-bad-gateway" => ip["gateway"] = "fd00::1".into(),
            "result-with-ip-version" => ip["version"] = "4".into(),
            "result-without-ip-version" if version < "1.0.0" => ip["version"] = Value::Null,
            _ => {}
        }
    }
}
