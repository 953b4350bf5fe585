//! The pod network of a cluster.

mod bridge;
pub(crate) mod podwire;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use harness::cluster::Mode;
use serde_json::{Value, json};

pub(crate) use self::podwire::image;
use crate::containerd::Containerd;
use crate::kubectl::Kubectl;
use crate::node::{NETWORKS, Node};

/// Of the agent.
pub(crate) const TAINT: &str = "podwire.dev/agent-not-ready";
/// Of somebody else.
pub(crate) const OTHER_TAINT: &str = "example.com/stays";
/// The newest version of CNI's specification that the distribution's plugins know.
const BRIDGE_VERSION: &str = "1.0.0";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The CNI project's `bridge`, and routes between the nodes: shows what a cluster can do without us.
    Bridge,
    /// Ours, as it is deployed.
    Podwire(Mode),
}

/// As the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The CNI project's bridge plugin, with routes between the nodes
    Bridge,
    /// Ours
    Podwire,
}

/// A node as the API server has it, once it has its pod networks.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// IPv4 first.
    pub(crate) addresses: Vec<String>,
    /// IPv4 first.
    pub(crate) pod_cidrs: Vec<String>,
}

impl Network {
    /// As tables show it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bridge => "bridge".to_owned(),
            Self::Podwire(mode) => format!("podwire {}", mode.name()),
        }
    }

    /// What nodes are registered with: a taint of the agent's, which takes it off, and one that it leaves alone.
    pub(crate) fn taints(self) -> Value {
        match self {
            Self::Bridge => json!([]),
            Self::Podwire(_) => json!([
                {"key": OTHER_TAINT, "effect": "PreferNoSchedule"},
                {"key": TAINT, "effect": "NoSchedule"},
            ]),
        }
    }

    /// Sets it up on all nodes. Configurations come last: with them a node is Ready.
    pub(crate) fn install(
        self,
        nodes: &mut [Node],
        members: &[Member],
        containerd: Containerd,
        kubectl: &Kubectl,
    ) -> Result<()> {
        if let Self::Podwire(mode) = self {
            return podwire::deploy(nodes, kubectl, containerd, mode);
        }
        for node in nodes.iter_mut() {
            let own = members.iter().find(|member| member.name == node.name);
            let own = own.with_context(|| format!("{} is no member", node.name))?;
            let plugin = bridge::install(node, own, members)?;
            configure(node, &plugin)?;
        }
        Ok(())
    }

    /// Brings back to a node what it had on disk.
    pub(crate) fn restore(self, node: &Node, containerd: Containerd) -> Result<()> {
        match self {
            Self::Bridge => bail!("not made for it"),
            Self::Podwire(_) => podwire::import(node, containerd),
        }
    }

    /// First words of what it keeps for each pod.
    pub(crate) fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Bridge => &["interface", "lease"],
            Self::Podwire(_) => &["interface", "file", "entry", "link"],
        }
    }

    /// What the network keeps on a node: each entry disappears with its pod.
    pub(crate) fn kept(self, node: &Node) -> Result<Vec<String>> {
        let mut kept = match self {
            Self::Bridge => bridge::kept(node),
            Self::Podwire(_) => podwire::kept(node)?,
        };
        let links = node.json("ip -json link show type veth")?;
        let names = links.as_array().into_iter().flatten();
        kept.extend(names.map(|link| format!("interface {}", link["ifname"])));
        kept.sort();
        Ok(kept)
    }
}

/// Writes the configuration, complete from its first moment on. containerd 1.6 does not notice files that
/// are moved there from another directory.
fn configure(node: &Node, plugin: &Value) -> Result<()> {
    let list = json!({
        "cniVersion": BRIDGE_VERSION,
        "name": "pods",
        "plugins": [plugin, {"type": "portmap", "capabilities": {"portMappings": true}}],
    });
    let directory: PathBuf = node.inside(NETWORKS);
    let (hidden, file) = (directory.join(".new"), directory.join("05-pods.conflist"));
    fs::write(&hidden, list.to_string())?;
    Ok(fs::rename(hidden, file)?)
}

/// Names of the files in a directory of a node.
fn files(node: &Node, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(node.inside(directory)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
