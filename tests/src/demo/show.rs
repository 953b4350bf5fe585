//! What people see.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::stage::Stage;
use crate::command;
use crate::report::{section, table};

/// Nodes and pods with their addresses.
pub(super) fn picture(stage: &Stage) {
    let mut grid = table(&["node", "addresses", "pod", "addresses of the pod"]);
    let join = |addresses: &[std::net::IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    for (number, pod) in stage.pods.iter().enumerate() {
        grid.add_row(vec![
            pod.node.name.clone(),
            join(&pod.node.addresses),
            Stage::name(number),
            join(&pod.addresses),
        ]);
    }
    grid.add_row(vec!["the world".to_owned(), join(&stage.world), String::new(), String::new()]);
    println!("{grid}");
}

/// One map of one node, as a stock tool prints it.
pub(super) fn map(stage: &Stage) -> Result<()> {
    let node = stage.cluster.node(1);
    let pin = node.bpffs.join("maps").join("pw_pods");
    section(&format!("$ bpftool map dump pinned {}", pin.display()));
    let dump = command::run(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(pin))?;
    println!("{}", dump.trim_end());
    Ok(())
}

/// What the programs of each node counted.
pub(super) fn counters(stage: &Stage) -> Result<()> {
    let statuses =
        stage.cluster.nodes().iter().map(|node| node.status()).collect::<Result<Vec<_>>>()?;
    let mut header = vec!["counter", "what"];
    let names = stage.cluster.nodes().iter().map(|node| node.name.as_str());
    header.extend(names);
    let mut grid = table(&header);
    let first = statuses.first().and_then(|s| s["counters"].as_array()).context("counters")?;
    for (at, counter) in first.iter().enumerate() {
        let packets = |status: &Value| status["counters"][at]["packets"].as_u64().unwrap_or(0);
        if statuses.iter().all(|status| packets(status) == 0) {
            continue;
        }
        let text = |key: &str| counter[key].as_str().unwrap_or_default().to_owned();
        let mut row = vec![text("name"), text("help")];
        row.extend(statuses.iter().map(|status| packets(status).to_string()));
        grid.add_row(row);
    }
    section("What the programs counted, in packets (podwire-agent status --output json)");
    println!("{grid}");
    Ok(())
}

/// Commands for a cluster that stays.
pub(super) fn look_around(stage: &Stage) {
    let (node, pod) = (stage.cluster.node(1), &stage.pods[0]);
    let remote = stage.pods[2].addresses[0];
    let binary = crate::binaries::agent().unwrap_or_default();
    section("It stays up. Look around:");
    for line in [
        format!("{} status --socket {}", binary.display(), node.socket().display()),
        format!("bpftool map dump pinned {}/maps/pw_nodes", node.bpffs.display()),
        format!("nsenter --net={} ping {remote}", pod.netns().display()),
        format!("nsenter --net={} tcpdump -ni eth0", node.namespace.path().display()),
        format!("nsenter --net={} ip route", node.namespace.path().display()),
        format!("nsenter --net={} nft list table inet podwire", node.namespace.path().display()),
        format!("less {}", node.log().display()),
    ] {
        println!("  {line}");
    }
    println!("Remove it:\n  cargo xtask demo --clean");
}
