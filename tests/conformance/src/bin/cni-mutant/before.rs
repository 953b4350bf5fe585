//! Rules that are broken before the real plugin runs, or instead.

use std::fs::{self, File};

use anyhow::Result;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::base::{real, records};
use crate::call::{Call, Reply, litter_host};

/// Breaks a rule, and answers if nothing else has to be done.
pub(crate) fn before(rule: &str, call: &mut Call) -> Result<Option<Reply>> {
    if let Some(reply) = input(rule, call) {
        return Ok(Some(reply));
    }
    match call.verb() {
        "" if rule == "command-missing-accepted" => Ok(Some(Reply::success())),
        "FROBNICATE" if rule == "command-unknown-accepted" => Ok(Some(Reply::success())),
        "VERSION" if rule == "version-fails" => {
            Ok(Some(Reply::error(call.version(), 100, "no version today")))
        }
        "ADD" => add(rule, call),
        "DEL" => del(rule, call),
        "CHECK" => Ok(check(rule, call)),
        "GC" => Ok(gc(rule, call)),
        "STATUS" => Ok(status(rule, call)),
        _ => Ok(None),
    }
}

/// What concerns configuration and variables of any verb.
fn input(rule: &str, call: &mut Call) -> Option<Reply> {
    let refuse = |call: &Call, code| Some(Reply::error(call.version(), code, "refused"));
    let is_known = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].contains(&call.version());
    let is_valid = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
    };
    let name = call.config["name"].as_str().unwrap_or_default().to_owned();
    match rule {
        "unknown-version-accepted" if !is_known => {
            call.edit(|config| config["cniVersion"] = "1.0.0".into());
        }
        "unknown-version-other-code" if !is_known => return refuse(call, 7),
        "args-refused" if !call.config["args"].is_null() => return refuse(call, 2),
        "runtime-config-refused" if !call.config["runtimeConfig"].is_null() => {
            return refuse(call, 2);
        }
        "name-made-up" if name.is_empty() => call.edit(|config| config["name"] = "kit".into()),
        "name-unchecked" if !is_valid(&name) => call.edit(|config| config["name"] = "kit".into()),
        "garbage-other-code" if call.config.is_null() => return refuse(call, 7),
        "empty-accepted" if call.input.is_empty() => return Some(Reply::success()),
        "version-number-accepted" if call.config["cniVersion"].is_number() => {
            call.edit(|config| config["cniVersion"] = "1.0.0".into());
        }
        "container-id-unchecked" if !is_valid(call.env("CNI_CONTAINERID")) => {
            *call = call.with(&[("CNI_CONTAINERID", "something")]);
        }
        "interface-name-unchecked" if !is_valid(call.env("CNI_IFNAME")) => {
            *call = call.with(&[("CNI_IFNAME", "something")]);
        }
        "interface-name-unchecked" if call.env("CNI_IFNAME").len() > 15 => {
            let short = call.env("CNI_IFNAME")[..15].to_owned();
            *call = call.with(&[("CNI_IFNAME", &short)]);
        }
        "path-required" | "path-required-for-status" if call.env("CNI_PATH").is_empty() => {
            return (call.verb() != "VERSION").then(|| Reply::error(call.version(), 4, "CNI_PATH"));
        }
        "delegate-fixed-path" => *call = call.with(&[("CNI_PATH", "/usr/lib/cni")]),
        "delegate-clean-environment" => {
            call.environment.retain(|name, _| name.starts_with("CNI_") || name == "PATH");
        }
        "delegate-part-of-configuration" => {
            call.edit(|config| config["isDefaultGateway"] = false.into());
        }
        _ => {}
    }
    None
}

fn add(rule: &str, call: &mut Call) -> Result<Option<Reply>> {
    let version = call.version().to_owned();
    let refuse = || Some(Reply::error(&version, 100, "refused"));
    let is_there = call.has_interface();
    let pretended = json!({"cniVersion": version, "ips": [], "dns": {}});
    let reply = match rule {
        "kubernetes-args-refused" if call.env("CNI_ARGS").contains("K8S") => refuse(),
        "add-does-nothing" => Some(Reply::result(&pretended)),
        "add-ignores-name" => {
            *call = call.with(&[("CNI_IFNAME", "eth0")]);
            None
        }
        "add-replaces" if is_there => {
            call.ip(&["link", "delete", call.env("CNI_IFNAME")]);
            real(&call.with(&[("CNI_COMMAND", "DEL")]))?;
            None
        }
        "add-twice-succeeds" if call.record()?.exists() => Some(Reply::result(&pretended)),
        "add-twice-breaks-first" if call.record()?.exists() => {
            call.ip(&["address", "flush", "dev", call.env("CNI_IFNAME")]);
            None
        }
        "add-once-per-container" => {
            let id = call.env("CNI_CONTAINERID");
            records(call).iter().any(|record| record.0 == id).then(refuse).flatten()
        }
        "add-without-namespace" if !call.ip(&["link"]) => Some(Reply::result(&pretended)),
        "add-never-again" => {
            let seen = call.record()?.with_extension("seen");
            let was_seen = seen.exists();
            fs::rename(empty_file(call)?, seen)?;
            was_seen.then(refuse).flatten()
        }
        "prev-result-ignored" => {
            if let Some(config) = call.config.as_object_mut() {
                config.remove("prevResult");
            }
            call.input = call.config.to_string();
            None
        }
        "chain-begins" if call.config["prevResult"].is_null() => Some(Reply::result(&pretended)),
        "one-at-a-time" => locked(call)?,
        _ => None,
    };
    Ok(reply)
}

/// A file outside of the records.
fn empty_file(call: &Call) -> Result<std::path::PathBuf> {
    let path = format!("{}/{}", call.env("CNI_MUTANT_STATE"), std::process::id());
    File::create(&path)?;
    Ok(path.into())
}

/// Refuses if another call runs.
fn locked(call: &Call) -> Result<Option<Reply>> {
    let file = File::create(format!("{}/lock", call.env("CNI_MUTANT_STATE")))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // Held until the end of the process.
            std::mem::forget(lock);
            Ok(None)
        }
        Err(_) => Ok(Some(Reply::error(call.version(), 11, "another call runs"))),
    }
}

fn del(rule: &str, call: &mut Call) -> Result<Option<Reply>> {
    let version = call.version().to_owned();
    let refuse = || Some(Reply::error(&version, 100, "refused"));
    let has_namespace = call.ip(&["link"]);
    let has_netns = !call.env("CNI_NETNS").is_empty();
    let has_result = call.config["prevResult"].get("cniVersion").is_some();
    let without_delegate = |call: &mut Call| {
        if let Some(config) = call.config.as_object_mut() {
            config.remove("ipam");
        }
        call.input = call.config.to_string();
    };
    let reply = match rule {
        "del-does-nothing" => Some(Reply::success()),
        "del-without-container" if call.env("CNI_CONTAINERID").is_empty() => Some(Reply::success()),
        "del-without-interface" if call.env("CNI_IFNAME").is_empty() => Some(Reply::success()),
        "del-of-unknown-fails" if !call.record()?.exists() => refuse(),
        "del-needs-prev-result" if !has_result => refuse(),
        "del-opens-namespace" if !has_namespace => refuse(),
        "del-needs-netns" if !has_netns => refuse(),
        "del-needs-interface" if !call.has_interface() => refuse(),
        "del-does-nothing-without-netns" if !has_netns => Some(Reply::success()),
        "del-does-nothing-without-prev-result" if !has_result => Some(Reply::success()),
        "del-not-delegated" => {
            without_delegate(call);
            None
        }
        "del-not-delegated-without-namespace" if !has_namespace => {
            without_delegate(call);
            None
        }
        "del-litters" => {
            litter_host();
            None
        }
        "del-litters-without-namespace" if !has_namespace => {
            litter_host();
            None
        }
        "del-removes-all" => {
            for (_, ifname, netns) in records(call) {
                call.with(&[("CNI_NETNS", &netns)]).ip(&["link", "delete", &ifname]);
            }
            None
        }
        "status-stops-others" if is_full(call) => refuse(),
        "one-at-a-time" => locked(call)?,
        _ => None,
    };
    Ok(reply)
}

fn is_full(call: &Call) -> bool {
    call.env("CNI_MUTANT_POOL").parse().is_ok_and(|room: usize| records(call).len() >= room)
}

fn check(rule: &str, call: &Call) -> Option<Reply> {
    let is_missing = |name: &&str| call.env(name).is_empty();
    let missing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].iter().any(is_missing);
    match rule {
        "check-without-anything" if missing => Some(Reply::success()),
        "check-fails" => Some(Reply::error(call.version(), 100, "no")),
        "check-checks-nothing" => Some(Reply::success()),
        "check-refuses-later-routes"
            if call.config["prevResult"]["routes"].as_array().is_some_and(|r| r.len() > 1) =>
        {
            Some(Reply::error(call.version(), 100, "too many routes"))
        }
        _ => None,
    }
}

fn gc(rule: &str, call: &mut Call) -> Option<Reply> {
    let is_empty = call.config["cni.dev/valid-attachments"].as_array().is_none_or(Vec::is_empty);
    match rule {
        "gc-fails" => Some(Reply::error(call.version(), 100, "no")),
        "gc-removes-nothing" => Some(Reply::success()),
        "gc-ignores-empty-list" if is_empty => Some(Reply::success()),
        "gc-in-old-version" if call.version() != "1.1.0" => Some(Reply::success()),
        "gc-ignores-network" => {
            call.edit(|config| {
                let name = config["name"].as_str().unwrap_or_default();
                config["name"] = Value::from(name.trim_end_matches("-other"));
            });
            for (_, ifname, netns) in records(call) {
                if is_empty {
                    call.with(&[("CNI_NETNS", &netns)]).ip(&["link", "delete", &ifname]);
                }
            }
            None
        }
        _ => None,
    }
}

fn status(rule: &str, call: &Call) -> Option<Reply> {
    match rule {
        "status-fails" => Some(Reply::error(call.version(), 50, "no")),
        "status-always-ready" => Some(Reply::success()),
        "status-other-code" if is_full(call) => Some(Reply::error(call.version(), 7, "full")),
        "status-in-old-version" if call.version() != "1.1.0" => Some(Reply::success()),
        _ => None,
    }
}
