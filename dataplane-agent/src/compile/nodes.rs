//! The entries of `pw_nodes`.

use std::sync::Arc;

use dataplane_core::abi::{Addr, NodeEntry};
use ipnet::IpNet;

use super::outside;
use super::peers::{Peer, Ways, networks};
use crate::kernel::{NodeTable, Observed};
use crate::model::{Model, Node};

/// What `pw_nodes` is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Source {
    own_name: String,
    nodes: Vec<(Arc<Node>, Ways)>,
    cluster: Vec<IpNet>,
    outside: Vec<IpNet>,
}

impl Source {
    pub(super) fn new(
        model: &Model,
        own: &Node,
        observed: &Observed,
        cluster: Vec<IpNet>,
        peers: &[Peer<'_>],
    ) -> Self {
        let mut peers = peers.iter();
        let ways = |node: &Arc<Node>| match node.name == model.own_name {
            true => Ways::default(),
            false => peers.next().map(|peer| peer.ways).unwrap_or_default(),
        };
        Self {
            own_name: model.own_name.clone(),
            nodes: model.nodes.iter().cloned().zip(model.nodes.iter().map(ways)).collect(),
            cluster,
            outside: outside::of(model, observed, &own.pod_cidrs),
        }
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = Peer<'_>> {
        let others = self.nodes.iter().filter(|(node, _)| node.name != self.own_name);
        others.map(|(node, ways)| Peer { node, ways: *ways })
    }

    /// The more special source of an entry comes last and wins where two have the same prefix.
    pub(super) fn table(&self, own: &Node) -> NodeTable {
        let entry = |kind| NodeEntry { node: Addr::UNSPECIFIED, kind, mtu: 0 };
        let kind = |cidr: &IpNet, kind| (*cidr, entry(kind));
        let cluster = self.cluster.iter().map(|cidr| kind(cidr, NodeEntry::CLUSTER));
        let own_cidrs = own.pod_cidrs.iter().map(|cidr| kind(cidr, NodeEntry::OWN));
        let networks = self.nodes.iter().flat_map(|(node, ways)| networks(node, *ways));
        let networks = networks.filter_map(|(cidr, way)| Some((cidr, way.entry()?)));
        let outside = self.outside.iter().map(|address| kind(address, NodeEntry::OWN));
        let addresses = self.nodes.iter().flat_map(|(node, _)| {
            node.addresses.iter().map(move |address| {
                let other =
                    node.addresses.iter().find(|other| other.is_ipv4() != address.is_ipv4());
                let other = other.map_or(Addr::UNSPECIFIED, |other| Addr::from(*other));
                (IpNet::from(*address), NodeEntry { node: other, ..entry(NodeEntry::NODE) })
            })
        });
        cluster.chain(own_cidrs).chain(networks).chain(outside).chain(addresses).collect()
    }
}
