//! What pods leave on a node.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dataplane_core::abi::PodEntry;
use serde_json::Value;
use tests::cluster::Cluster;
use tests::command;
use tests::namespace::Namespace;
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::wait::wait_until;

const END_TIME_MAX: Duration = Duration::from_secs(15);
/// Two looks, a minute apart, and what they need on a busy machine.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(100);

/// Host sides of veths, pins of links, files of attachments, entries of `pw_pods`, addresses in use.
pub(crate) fn of_pods(node: &Node) -> Result<BTreeSet<String>> {
    let mut traces: BTreeSet<String> = kernel_traces(node)?;
    for entry in fs::read_dir(node.directory.join("attachments"))? {
        traces.insert(entry?.path().display().to_string());
    }
    let entries = node.map("pw_pods")?;
    let of_pods =
        entries.iter().filter(|entry| entry["formatted"]["value"]["kind"] == PodEntry::POD);
    traces.extend(of_pods.map(|entry| entry["formatted"]["key"].to_string()));
    let pools = node.status()?["pools"].clone();
    for pool in pools.as_array().context("pools")?.iter().filter(|pool| pool["used"] != 0) {
        traces.insert(pool.to_string());
    }
    Ok(traces)
}

/// Those that do not need the agent.
pub(crate) fn kernel_traces(node: &Node) -> Result<BTreeSet<String>> {
    let is_of_pod = |name: &&String| name.starts_with("pw");
    let mut traces: BTreeSet<String> =
        interfaces(&node.namespace)?.iter().filter(is_of_pod).cloned().collect();
    for entry in fs::read_dir(node.bpffs.join("links"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        traces.extend(Some(name).filter(|name| is_of_pod(&name)));
    }
    Ok(traces)
}

/// Nothing of pods is left on the node, nor in the namespace of this one.
pub(crate) fn ensure_none(node: &Node, pod: &Pod) -> Result<()> {
    let left = of_pods(node)?;
    ensure!(left.is_empty(), "left: {left:?}");
    let inside = interfaces(&pod.namespace)?;
    ensure!(inside == ["lo"], "in the pod: {inside:?}");
    Ok(())
}

/// The kernel takes its time with the interfaces of namespaces that are gone: until these many are left.
pub(crate) fn wait_for_end_of_interfaces(node: &Node, left: usize) -> Result<()> {
    wait_until("the end of the interfaces", END_TIME_MAX, || {
        let names = interfaces(&node.namespace)?;
        let of_pods = names.iter().filter(|name| name.starts_with("pw")).count();
        ensure!(of_pods == left, "{names:?}");
        Ok(())
    })
}

/// The agent finds by itself what is left.
pub(crate) fn wait_for_sweep(node: &Node) -> Result<()> {
    wait_until("the sweep", SWEEP_TIME_MAX, || {
        let left = of_pods(node)?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
}

/// Names of all interfaces.
pub(crate) fn interfaces(namespace: &Namespace) -> Result<Vec<String>> {
    let links = namespace.run("ip -br link")?;
    Ok(links.lines().filter_map(|line| line.split(['@', ' ']).next().map(str::to_owned)).collect())
}

/// Starts the agent of the first node of a cluster without agents, whose pools have room for
/// [`SMALL_POOL`] pods.
pub(crate) fn start_with_small_pool(cluster: &Cluster) -> Result<()> {
    let text = fs::read_to_string(cluster.run().directory().join("nodes.toml"))?;
    let small = text.replace("10.244.1.0/24", "10.244.1.0/29").replace("244:1::/64", "244:1::/125");
    ensure!(small != text, "the node file has another form");
    cluster.write_node_file(&small)?;
    cluster.node(1).spawn_agent()?;
    cluster.node(1).wait_for_agent()
}

/// A /29 less its own address, the broadcast address and the node's.
pub(crate) const SMALL_POOL: usize = 5;

/// Calls CHECK with the result of ADD.
pub(crate) fn check(pod: &Pod) -> Result<Result<Value, Value>> {
    let mut configuration = pod.node.cni_configuration();
    configuration["prevResult"] = pod.result.clone();
    let netns = pod.netns();
    let call = CniCall { command: "CHECK", container_id: &pod.container_id, netns: &netns };
    pod.node.cni_with(&call, &configuration)
}

/// Calls ADD of a plugin that kills itself behind a step.
pub(crate) fn killed_add(pod: &Pod, step: &str) -> Result<()> {
    killed_add_with(pod, step, &pod.node.cni_configuration())
}

/// As [`killed_add`], with another configuration.
pub(crate) fn killed_add_with(pod: &Pod, step: &str, configuration: &Value) -> Result<()> {
    let plugin = tests::binaries::fault_plugin()?;
    let mut command = pod.node.namespace.command(&plugin.to_string_lossy());
    command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", &pod.container_id);
    command.env("CNI_NETNS", pod.netns()).env("CNI_IFNAME", "eth0").env("CNI_PATH", "/usr/lib/cni");
    command.env("PODWIRE_FAULT_KILL", step);
    let output = command::feed(&mut command, &configuration.to_string())?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{step}: not killed: {output:?}");
    Ok(())
}
