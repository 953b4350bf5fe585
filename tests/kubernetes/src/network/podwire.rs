//! Podwire, with an agent on each node that reads a file of nodes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::binaries;
use harness::cluster::{CLUSTER_CIDRS, Mode};
use serde_json::{Value, json};

use super::Member;
use crate::node::{Node, PLUGINS};

const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Returns the plugin's configuration, when the agent has all that pods need.
pub(super) fn install(node: &mut Node, members: &[Member], mode: Mode) -> Result<Value> {
    fs::copy(binaries::plugin()?, node.inside(PLUGINS).join("podwire"))?;
    let file = node.file("nodes.toml");
    fs::write(&file, node_file(members))?;
    let mut flags = vec![
        "run".to_owned(),
        format!("--node-name={}", node.name),
        format!("--nodes-file={}", file.display()),
        format!("--encapsulation={}", mode.name()),
    ];
    flags.extend(CLUSTER_CIDRS.map(|cidr| format!("--cluster-cidr={cidr}")));
    let agent = binaries::agent()?;
    node.spawn("podwire-agent", &agent, &flags)?;
    node.wait("the agent", START_TIME_MAX, |node| {
        let status = status(node)?;
        ensure!(status["settled"] == true, "not settled: {}", status["problems"]);
        Ok(())
    })?;
    Ok(json!({"type": "podwire"}))
}

fn status(node: &Node) -> Result<Value> {
    node.json(&format!("{} status --output json", binaries::agent()?.display()))
}

pub(super) fn kept(node: &Node) -> Result<Vec<String>> {
    let files = super::files(node, "run/podwire/attachments");
    let mut kept: Vec<String> = files.into_iter().map(|name| format!("file {name}")).collect();
    let map = node.json("bpftool -j map dump pinned /sys/fs/bpf/podwire/maps/pw_pods")?;
    let entries = map.as_array().context("pw_pods")?.iter();
    kept.extend(entries.map(|entry| format!("entry {}", entry["formatted"]["key"])));
    kept.extend(
        super::files(node, "sys/fs/bpf/podwire/links")
            .into_iter()
            .map(|name| format!("link {name}")),
    );
    Ok(kept)
}

fn node_file(members: &[Member]) -> String {
    let node = |member: &Member| {
        format!(
            "[[node]]\nname = {:?}\naddresses = {:?}\npod_cidrs = {:?}\n\n",
            member.name, member.addresses, member.pod_cidrs
        )
    };
    members.iter().map(node).collect()
}
