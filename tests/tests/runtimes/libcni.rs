//! The CNI project's own library, and its `cnitool`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;

use super::list;
use crate::traces;

/// What the library makes of a call: the result, or the code of an error of the contract.
pub(super) struct Library<'a> {
    pub(super) node: &'a Node,
    pub(super) ifname: &'a str,
    pub(super) capabilities: Value,
    /// Instead of the pod's.
    netns: Option<PathBuf>,
}

impl<'a> Library<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self { node, ifname: "eth0", capabilities: json!({}), netns: None }
    }

    pub(super) fn call(&self, verb: &str, pod: &Pod, list: &Value) -> Result<Value> {
        let mut library = self.node.namespace.command(&binaries::go("libcni")?.to_string_lossy());
        let call = json!({
            "Verb": verb,
            "Config": list,
            "Path": self.node.plugins()?,
            "Cache": self.node.directory.join("cni-cache"),
            "ContainerID": pod.container_id,
            "Netns": self.netns.clone().unwrap_or_else(|| pod.netns()),
            "Ifname": self.ifname,
            "CapabilityArgs": self.capabilities,
            "Valid": [],
        });
        let output = command::feed(&mut library, &call.to_string())?;
        let answer: Value = serde_json::from_str(&command::checked(&library, &output)?)?;
        ensure!(answer["refused"].is_null(), "{verb}: libcni refuses: {answer}");
        Ok(answer)
    }

    /// A call that succeeds; returns the result.
    pub(super) fn succeed(&self, verb: &str, pod: &Pod, list: &Value) -> Result<Value> {
        let mut answer = self.call(verb, pod, list)?;
        ensure!(answer["error"].is_null(), "{verb}: {answer}");
        Ok(answer["result"].take())
    }

    /// A call that fails with a code.
    pub(super) fn fail(&self, verb: &str, pod: &Pod, list: &Value, code: u32) -> Result<()> {
        let answer = self.call(verb, pod, list)?;
        ensure!(answer["error"]["code"] == code, "{verb}: {answer}, not {code}");
        Ok(())
    }
}

fn versions(node: &Node) -> Result<Vec<String>> {
    let mut plugin = node.namespace.command(&binaries::plugin()?.to_string_lossy());
    let answer: Value = serde_json::from_str(&command::run(plugin.env("CNI_COMMAND", "VERSION"))?)?;
    let versions = answer["supportedVersions"].as_array().context("supportedVersions")?;
    Ok(versions.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn it_accepts_results_and_errors_in_every_version() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let library = Library::new(node);
        for version in versions(node)? {
            calls(&library, node, &version).with_context(|| format!("in version {version}"))?;
        }
        Ok(())
    });
}

#[test]
fn it_accepts_that_no_address_is_left() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        traces::start_with_small_pool(cluster)?;
        let node = cluster.node(1);
        let (library, list) = (Library::new(node), list(node, "1.0.0", &[]));
        let pods = (0..traces::SMALL_POOL).map(|_| node.pod()).collect::<Result<Vec<_>>>()?;
        let pod = node.bare_pod()?;
        library.fail("ADD", &pod, &list, 50)?;
        library.fail("STATUS", &pod, &super::list(node, "1.1.0", &[]), 50)?;
        pods[0].delete()?;
        library.succeed("ADD", &pod, &list)?;
        library.succeed("DEL", &pod, &list).map(drop)
    });
}

#[test]
fn it_accepts_that_gc_finds_no_agent() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.bare_pod()?;
        node.kill_agent();
        Library::new(node).fail("GC", &pod, &list(node, "1.1.0", &[]), 11)
    });
}

fn calls(library: &Library<'_>, node: &std::sync::Arc<Node>, version: &str) -> Result<()> {
    let pod = node.bare_pod()?;
    let list = list(node, version, &[]);
    library.succeed("VALIDATE", &pod, &list)?;
    let result = library.succeed("ADD", &pod, &list)?;
    ensure!(result["cniVersion"] == version, "{result}");
    ensure!(result["ips"].as_array().context("ips")?.len() == 2, "{result}");
    for gateway in node.gateways {
        probe::ping(&pod.namespace, gateway)?;
    }
    library.fail("ADD", &pod, &list, 101)?;
    if !version.starts_with("0.3") {
        library.succeed("CHECK", &pod, &list)?;
        pod.namespace.ip("link set eth0 mtu 1300")?;
        library.fail("CHECK", &pod, &list, 102)?;
    }
    if version == "1.1.0" {
        library.succeed("STATUS", &pod, &list)?;
        library.succeed("GC", &pod, &list)?;
        traces::ensure_none(node, &pod)?;
    }
    for _ in 0..2 {
        library.succeed("DEL", &pod, &list)?;
        traces::ensure_none(node, &pod)?;
    }
    let nowhere = Library { netns: Some("/run/netns/there-is-none".into()), ..Library::new(node) };
    nowhere.fail("ADD", &pod, &list, 3)?;
    let mut wrong = list.clone();
    wrong["plugins"][0]["socket"] = "a.sock".into();
    for verb in ["ADD", "DEL"] {
        library.fail(verb, &pod, &wrong, 7)?;
    }
    Ok(())
}
