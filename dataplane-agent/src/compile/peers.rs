//! How another node is reached.

use std::net::IpAddr;

use dataplane_core::abi::{Addr, NodeEntry};
use ipnet::IpNet;

use super::{Paths, overhead};
use crate::model::{Encapsulation, Node};

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// One per pod network.
    pub ways: Vec<Way>,
}

/// The way to a pod network of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The network.
    pub cidr: IpNet,
    /// The node's address at the end of the way; none: nothing leads there.
    pub node: Option<IpAddr>,
    /// Inside VXLAN.
    pub tunnel: bool,
    /// Largest IP packet that arrives whole.
    pub mtu: u32,
}

impl Way {
    /// Whether packets go as they are.
    pub fn is_direct(&self) -> bool {
        self.node.is_some() && !self.tunnel
    }

    /// Its entry in `pw_nodes`.
    pub fn entry(&self) -> Option<NodeEntry> {
        let kind = if self.tunnel { NodeEntry::TUNNEL } else { NodeEntry::DIRECT };
        self.node.map(|node| NodeEntry { node: Addr::from(node), kind, mtu: self.mtu })
    }
}

/// IPv6 works on no link with less (RFC 8200, section 5).
const MTU_IPV6_MIN: u32 = 1_280;

impl Paths {
    /// The kernel takes IPv6 off an interface whose MTU is too small.
    pub(super) fn obstacle(&self, own: &Node, uplinks: &[String]) -> Option<String> {
        let has_ipv6 = own.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)));
        (has_ipv6 && self.pod_mtu < MTU_IPV6_MIN).then(|| {
            format!(
                "the MTU of pods would be {}, and IPv6 needs {MTU_IPV6_MIN}: raise that of the \
                 uplink ({}) from {} to {} at least, or take the IPv6 pod networks out of the node \
                 file",
                self.pod_mtu,
                uplinks.join(", "),
                self.uplink_mtu,
                MTU_IPV6_MIN.saturating_add(self.uplink_mtu.saturating_sub(self.pod_mtu)),
            )
        })
    }

    pub(super) fn peer(&self, peer: &Node) -> Peer {
        Peer {
            name: peer.name.clone(),
            addresses: peer.addresses.clone(),
            ways: peer.pod_cidrs.iter().map(|cidr| self.way(peer, cidr)).collect(),
        }
    }

    fn way(&self, peer: &Node, cidr: &IpNet) -> Way {
        let direct = peer.address_like(&cidr.addr());
        let node = match self.encapsulation {
            Encapsulation::Direct => direct,
            Encapsulation::Vxlan => None,
            Encapsulation::Auto => direct.filter(|address| self.is_connected(address)),
        };
        if node.is_some() || self.encapsulation == Encapsulation::Direct {
            return Way { cidr: *cidr, node, tunnel: false, mtu: self.uplink_mtu };
        }
        let node = self.outer_address(peer);
        let outer_ipv4 = node.is_some_and(|node| node.is_ipv4());
        let mtu = self.uplink_mtu.saturating_sub(overhead(outer_ipv4));
        Way { cidr: *cidr, node, tunnel: true, mtu }
    }

    fn is_connected(&self, address: &IpAddr) -> bool {
        self.connected.iter().any(|prefix| prefix.contains(address))
    }

    /// Both ends choose the same family: IPv4 if both have it, else IPv6.
    fn outer_address(&self, peer: &Node) -> Option<IpAddr> {
        [true, false].into_iter().find_map(|ipv4| {
            let own = self.own_addresses.iter().any(|address| address.is_ipv4() == ipv4);
            let other = peer.addresses.iter().copied().find(|address| address.is_ipv4() == ipv4);
            other.filter(|_| own)
        })
    }
}
