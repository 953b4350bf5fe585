//! The agents, as the API server and the machine have them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::node::Node;

/// Where their pods are, and how they are found there.
pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const SELECTOR: &str = "app.kubernetes.io/name=podwire";

/// Their pods, as the API server has them.
pub(crate) fn pods(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let pods = kubectl.get(&format!("pods --namespace {NAMESPACE} --selector {SELECTOR}"))?;
    Ok(pods["items"].as_array().context("items")?.clone())
}

/// The processes that belong to a group whose name has these words, as directories of `/proc`.
pub(crate) fn processes(words: &str) -> Result<Vec<PathBuf>> {
    let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let is_in = |process: &PathBuf| {
        fs::read_to_string(process.join("cgroup")).is_ok_and(|groups| groups.contains(words))
    };
    Ok(all.filter(is_in).collect())
}

/// The process with this name in a group of processes, as the machine numbers it.
pub(crate) fn process_named(name: &str, group: &str) -> Result<u32> {
    let is_it = |process: &PathBuf| {
        fs::read_to_string(process.join("comm")).is_ok_and(|it| it.trim() == name)
    };
    let process = processes(group)?.into_iter().find(is_it);
    number(&process.with_context(|| format!("no {name} runs in {group}"))?)
}

/// The process of the agent in a group of processes.
pub(crate) fn process_of(group: &str) -> Result<u32> {
    process_named("podwire-agent", group)
}

/// The process of a node's agent.
pub(crate) fn process(node: &Node) -> Result<u32> {
    process_of(&node.group)
}

/// The value of one of the agent's metrics.
pub(crate) fn metric(node: &Node, name: &str) -> Result<f64> {
    let page = node.run("curl --silent --fail --max-time 5 http://127.0.0.1:9869/metrics")?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("{name} is not in:\n{page}"))?.trim().parse()?)
}

fn number(process: &Path) -> Result<u32> {
    let name = process.file_name().and_then(|name| name.to_str()).context("a process")?;
    Ok(name.parse()?)
}
