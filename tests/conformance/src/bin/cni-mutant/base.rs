//! The plugin that keeps all rules: the real one, mended.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::call::{Call, Reply};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Answers. `rule` is for those that cannot be broken before or after.
pub(crate) fn run(rule: &str, call: &Call) -> Result<Reply> {
    match call.verb() {
        "" => Ok(Reply::error(call.version(), 4, "CNI_COMMAND is missing")),
        "VERSION" => {
            Ok(Reply::result(&json!({"cniVersion": call.version(), "supportedVersions": VERSIONS})))
        }
        "GC" | "STATUS" if call.version() != "1.1.0" => {
            Ok(Reply::error(call.version(), 1, "the verb is of 1.1.0"))
        }
        "GC" => gc(rule, call),
        "STATUS" => status(rule, call),
        "ADD" => add(rule, call),
        "DEL" => del(call),
        "CHECK" => real(call),
        other => Ok(Reply::error(call.version(), 4, &format!("CNI_COMMAND is {other:?}"))),
    }
}

/// Runs the real plugin, which knows no 1.1.0.
pub(crate) fn real(call: &Call) -> Result<Reply> {
    let is_new = call.config["cniVersion"] == "1.1.0";
    let mut input = call.input.clone();
    if is_new {
        let mut config = call.config.clone();
        config["cniVersion"] = "1.0.0".into();
        if config["prevResult"]["cniVersion"].is_string() {
            config["prevResult"]["cniVersion"] = "1.0.0".into();
        }
        input = config.to_string();
    }
    // The reference library wants it, the specification does not.
    let path = if call.env("CNI_PATH").is_empty() { "/nowhere" } else { call.env("CNI_PATH") };
    let mut reply = call.with(&[("CNI_PATH", path)]).execute(&Call::base(), &input)?;
    if reply.failed || is_new {
        reply.edit(|document| document["cniVersion"] = call.version().into());
    }
    Ok(reply)
}

fn add(rule: &str, call: &Call) -> Result<Reply> {
    if call.is_first() && call.config["prevResult"].is_object() {
        return Ok(Reply::error(call.version(), 7, "this plugin has to be the first"));
    }
    let was_there = call.has_interface();
    let reply = real(call)?;
    if !reply.failed {
        fs::write(call.record()?, call.env("CNI_NETNS"))?;
    } else if call.is_first() && !was_there && rule != "add-not-undone" {
        real(&call.with(&[("CNI_COMMAND", "DEL")]))?;
    }
    Ok(reply)
}

fn del(call: &Call) -> Result<Reply> {
    let reply = real(call)?;
    if !reply.failed {
        let _ = fs::remove_file(call.record()?);
    }
    Ok(reply)
}

/// The plugin for addresses, if it knows the verb, fails with a code of its own or one of STATUS.
fn delegated_error(call: &Call) -> Result<Option<Reply>> {
    let Some(name) = call.config["ipam"]["type"].as_str() else { return Ok(None) };
    let directories = call.env("CNI_PATH").split(':');
    let mut paths = directories.map(|directory| Path::new(directory).join(name));
    let Some(path) = paths.find(|path| path.exists()) else { return Ok(None) };
    let reply = call.execute(&path, &call.input)?;
    Ok((reply.failed && [50, 51].contains(&reply.code()) || reply.code() >= 100).then_some(reply))
}

fn status(rule: &str, call: &Call) -> Result<Reply> {
    if rule != "status-not-delegated"
        && let Some(error) = delegated_error(call)?
    {
        return Ok(Reply::error(call.version(), 50, &error.stdout));
    }
    let room: Option<usize> = call.env("CNI_MUTANT_POOL").parse().ok();
    if room.is_some_and(|room| records(call).len() >= room) {
        return Ok(Reply::error(call.version(), 50, "no address is left"));
    }
    Ok(Reply::success())
}

/// Container, interface and namespace of all attachments.
pub(crate) fn records(call: &Call) -> Vec<(String, String, String)> {
    let entries = call.records().and_then(|path| Ok(fs::read_dir(path)?));
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (id, ifname) = name.split_once('@')?;
        Some((id.to_owned(), ifname.to_owned(), fs::read_to_string(entry.path()).ok()?))
    };
    entries.into_iter().flatten().flatten().filter_map(read).collect()
}

fn gc(rule: &str, call: &Call) -> Result<Reply> {
    let delegated = if rule == "gc-not-delegated" { None } else { delegated_error(call)? };
    let valid = call.config["cni.dev/valid-attachments"].as_array().cloned().unwrap_or_default();
    let is_valid = |id: &str, ifname: &str| {
        valid.iter().any(|entry: &Value| {
            entry["containerID"] == id
                && (entry["ifname"] == ifname || rule == "gc-ignores-interface")
        })
    };
    for (id, ifname, netns) in records(call) {
        let netns = if rule == "gc-removes-all" { netns } else { String::new() };
        if rule == "gc-removes-all" || !is_valid(&id, &ifname) {
            del(&call.with(&[
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", &id),
                ("CNI_IFNAME", &ifname),
                ("CNI_NETNS", &netns),
            ]))?;
        }
    }
    Ok(delegated.unwrap_or_default())
}
