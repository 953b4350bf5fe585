//! What the agent knows, as plain data: the input of [`compile`](crate::compile).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cni_shim::delegation::Delegation;
use cni_shim::names::Attachment;
pub use cni_shim::names::is_pod_interface;
use dataplane_core::abi::{Mac, PodEntry};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::kernel::{AddrKey, AllRaised};

/// Everything that decides what the data plane of this node should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// What the operator chose.
    pub network: Network,
    /// Name of this node.
    pub own_name: String,
    /// All nodes, this one among them, in the order of the node file.
    pub nodes: Vec<Arc<Node>>,
    /// Interfaces of pods, by the name of their host side.
    pub attachments: BTreeMap<String, Attached>,
    /// Interfaces whose attachment file is lost or unreadable, with the entries that the map still has.
    pub orphans: BTreeMap<String, Vec<(AddrKey, PodEntry)>>,
    /// Interfaces of pods that are gone for good, so that pins of their links go too.
    pub released: BTreeSet<String>,
    /// Uplinks that were raised for BIG TCP and are not yet as they were.
    pub raised: AllRaised,
    /// The uplinks of the last look, for the moment in which no interface has the node's address.
    pub last_uplinks: Vec<String>,
}

impl Model {
    /// This node. Node sets without it are refused before they get here.
    pub fn own(&self) -> Option<&Node> {
        self.nodes.iter().map(AsRef::as_ref).find(|node: &&Node| node.name == self.own_name)
    }

    /// The other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(AsRef::as_ref).filter(|node: &&Node| node.name != self.own_name)
    }

    /// The pod networks of the cluster: as the operator said, else all that the nodes have.
    pub fn cluster_cidrs(&self) -> Vec<IpNet> {
        if self.network.cluster_cidrs.is_empty() {
            let all: Vec<IpNet> =
                self.nodes.iter().flat_map(|node| node.pod_cidrs.iter().copied()).collect();
            IpNet::aggregate(&all)
        } else {
            self.network.cluster_cidrs.clone()
        }
    }
}

/// What the operator chose for the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// How packets reach other nodes.
    pub encapsulation: Encapsulation,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// VXLAN network identifier.
    pub vxlan_vni: u32,
    /// Explicit pod networks of the cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// Explicit uplinks.
    pub uplinks: Vec<String>,
    /// The largest packet that the network between the nodes carries, where it is less than is found.
    pub mtu: Option<u32>,
    /// Whether pods send packets of more than 64 KiB at once.
    pub big_tcp: BigTcpMode,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            encapsulation: Encapsulation::Auto,
            vxlan_port: 8472,
            vxlan_vni: 0x5057,
            cluster_cidrs: Vec::new(),
            uplinks: Vec::new(),
            mtu: None,
            big_tcp: BigTcpMode::Auto,
        }
    }
}

/// How packets of pods reach other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// As they are; the network between the nodes routes pod networks, or the nodes share a link.
    Direct,
    /// Inside VXLAN, to all nodes.
    Vxlan,
    /// As they are to nodes on the same link, inside VXLAN to the others.
    #[default]
    Auto,
}

/// Whether pods hand the kernel packets of more than 64 KiB, which it segments at the last moment (BIG TCP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BigTcpMode {
    /// As far as all devices on their way take them; the devices stay as they are.
    #[default]
    Auto,
    /// Yes, and the uplinks are set to take them.
    On,
    /// No.
    Off,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses; the first of a family is the one that others use.
    pub addresses: Vec<IpAddr>,
    /// The pod networks that it owns.
    pub pod_cidrs: Vec<IpNet>,
}

impl Node {
    /// The registered address of the family of `like`.
    pub fn address_like(&self, like: &IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }
}

/// An interface of a pod: the content of an attachment file. A later release may have added fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Which interface of which container.
    pub attachment: Attachment,
    /// Name of the network configuration.
    pub network: String,
    /// Path of the network namespace, for people.
    pub netns: String,
    /// Namespace and name of the Kubernetes pod, for people.
    pub pod: String,
    /// Interface index of the host side.
    pub ifindex: u32,
    /// MAC of the host side.
    pub host_mac: [u8; 6],
    /// MAC of the pod's side.
    pub pod_mac: [u8; 6],
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Number of this owner of the addresses.
    pub generation: u64,
    /// The delegated plugin that has given the addresses, or was about to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Box<Delegation>>,
}

impl Attached {
    /// Its entry in `pw_pods`, the same for each of its addresses.
    pub fn entry(&self) -> PodEntry {
        PodEntry {
            ifindex: self.ifindex,
            kind: PodEntry::POD,
            mac: Mac::new(self.pod_mac),
            gateway_mac: Mac::new(self.host_mac),
            reserved: 0,
            generation: self.generation,
        }
    }
}

/// The address that a node reserves for itself in one of its pod networks: the first after the network's.
pub fn gateway(cidr: &IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_add(1)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_add(1)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways() {
        assert_eq!(gateway(&"10.244.1.0/24".parse().unwrap()).to_string(), "10.244.1.1");
        let v6: IpNet = "fd00:10:244:1::/64".parse().unwrap();
        assert_eq!(gateway(&v6).to_string(), "fd00:10:244:1::1");
    }
}
