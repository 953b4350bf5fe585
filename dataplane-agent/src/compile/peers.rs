//! How another node is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane_core::abi::{Addr, NodeEntry};
use dataplane_core::outer::{OVERHEAD_IPV4, OVERHEAD_IPV6};
use ipnet::IpNet;

use crate::kernel::{Hop, Link, Medium, Neighbour, Observed, PeerRoutes};
use crate::model::{Encapsulation, Model, Node};

/// MTU that is assumed while no uplink is known.
const UPLINK_MTU_UNKNOWN: u32 = 1_500;
/// IPv6 works on no link with less (RFC 8200, section 5).
const MTU_IPV6_MIN: u32 = 1_280;
/// Nodes that a problem names; of the others it tells the number.
const NAMED_MAX: usize = 3;

/// Another node, and how it is reached.
#[derive(Clone, Debug)]
pub struct Peer<'a> {
    /// The node.
    pub node: &'a Node,
    /// To its pod networks of IPv4 and of IPv6, where it has some.
    pub(super) ways: Ways,
}

impl Peer<'_> {
    /// To each of its pod networks.
    pub fn networks(&self) -> impl Iterator<Item = (IpNet, Way)> {
        networks(self.node, self.ways)
    }

    fn ways(&self) -> impl Iterator<Item = Way> {
        self.ways.into_iter().flatten()
    }
}

/// The pod networks of a node with the ways to them.
pub(super) fn networks(node: &Node, ways: Ways) -> impl Iterator<Item = (IpNet, Way)> {
    let [ipv4, ipv6] = ways;
    let way = move |cidr: &IpNet| if matches!(cidr, IpNet::V4(_)) { ipv4 } else { ipv6 };
    node.pod_cidrs.iter().filter_map(move |cidr| Some((*cidr, way(cidr)?)))
}

/// One per family.
pub(super) type Ways = [Option<Way>; 2];

/// The way to the pod networks of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The node's address at its end; none: nothing leads there.
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

/// What decides how a node is reached.
pub(super) struct Paths<'a> {
    encapsulation: Encapsulation,
    own: &'a Node,
    uplinks: &'a [&'a Link],
    interfaces: &'a BTreeMap<String, Link>,
    routes: &'a PeerRoutes,
    limit: Option<u32>,
}

/// What makes the MTU of pods as small as it is.
pub(super) struct Narrowest {
    pub(super) pod_mtu: u32,
    /// The largest packet on the way.
    underlay_mtu: u32,
    what: String,
}

impl Narrowest {
    /// The kernel takes IPv6 off an interface whose MTU is too small.
    pub(super) fn obstacle(&self, own: &Node) -> Option<String> {
        let has_ipv6 = own.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)));
        (has_ipv6 && self.pod_mtu < MTU_IPV6_MIN).then(|| {
            format!(
                "the MTU of pods would be {}, and IPv6 needs {MTU_IPV6_MIN}: raise that of {} from \
                 {} to {} at least, or take the IPv6 pod networks out of the node file",
                self.pod_mtu,
                self.what,
                self.underlay_mtu,
                MTU_IPV6_MIN.saturating_add(self.underlay_mtu.saturating_sub(self.pod_mtu)),
            )
        })
    }
}

impl<'a> Paths<'a> {
    pub(super) fn new(
        model: &'a Model,
        own: &'a Node,
        uplinks: &'a [&'a Link],
        observed: &'a Observed,
    ) -> Self {
        Self {
            encapsulation: model.network.encapsulation,
            own,
            uplinks,
            interfaces: &observed.interfaces,
            routes: &observed.peer_routes,
            limit: model.network.mtu,
        }
    }

    pub(super) fn peer<'b>(&self, node: &'b Node) -> Peer<'b> {
        let way = |ipv4: bool| {
            let mut cidrs = node.pod_cidrs.iter();
            cidrs.any(|cidr| matches!(cidr, IpNet::V4(_)) == ipv4).then(|| self.way(node, ipv4))
        };
        Peer { node, ways: [true, false].map(way) }
    }

    fn way(&self, peer: &Node, ipv4: bool) -> Way {
        let direct = peer.addresses.iter().copied().find(|address| address.is_ipv4() == ipv4);
        let node = match self.encapsulation {
            Encapsulation::Direct => direct,
            Encapsulation::Vxlan => None,
            Encapsulation::Auto => direct.filter(|address| self.is_on_link(address)),
        };
        if node.is_some() || self.encapsulation == Encapsulation::Direct {
            let mtu = node.map_or_else(|| self.uplink_mtu(), |node| self.underlay_mtu(&node));
            return Way { node, tunnel: false, mtu };
        }
        let node = self.outer_address(peer);
        let mtu = node.map_or_else(|| self.tunnel_mtu(), |node| self.mtu_inside(&node));
        Way { node, tunnel: true, mtu }
    }

    /// Whether packets for the address leave by an uplink that brings the answers, past no router.
    fn is_on_link(&self, address: &IpAddr) -> bool {
        let is_uplink = |name: &str| {
            self.uplinks.iter().any(|link| link.name == name && link.medium == Medium::Ethernet)
        };
        let on_link = |hop: &Hop| hop.gateway.is_none() && is_uplink(&hop.device);
        self.routes.get(address).is_some_and(|route| route.hops.iter().all(on_link))
    }

    /// Both ends choose the same family: IPv4 if both have it, else IPv6.
    fn outer_address(&self, peer: &Node) -> Option<IpAddr> {
        [true, false].into_iter().find_map(|ipv4| {
            let own = self.own.addresses.iter().any(|address| address.is_ipv4() == ipv4);
            let other = peer.addresses.iter().copied().find(|address| address.is_ipv4() == ipv4);
            other.filter(|_| own)
        })
    }

    /// Of the narrowest uplink.
    pub(super) fn uplink_mtu(&self) -> u32 {
        let mtu = self.uplinks.iter().map(|link| link.mtu).min();
        self.limited(mtu.unwrap_or(UPLINK_MTU_UNKNOWN))
    }

    /// The largest packet that reaches a node, as far as this node's devices and routes tell.
    fn underlay_mtu(&self, address: &IpAddr) -> u32 {
        let Some(route) = self.routes.get(address) else { return self.uplink_mtu() };
        let devices = route.hops.iter().filter_map(|hop| self.interfaces.get(&hop.device));
        let mtu = devices.map(|link| link.mtu).chain(route.mtu).min();
        mtu.map_or_else(|| self.uplink_mtu(), |mtu| self.limited(mtu))
    }

    fn mtu_inside(&self, outer: &IpAddr) -> u32 {
        self.underlay_mtu(outer).saturating_sub(overhead(outer.is_ipv4()))
    }

    /// Of the tunnel device.
    pub(super) fn tunnel_mtu(&self) -> u32 {
        let outer_ipv4 = self.own.addresses.iter().any(IpAddr::is_ipv4);
        self.uplink_mtu().saturating_sub(overhead(outer_ipv4))
    }

    fn limited(&self, mtu: u32) -> u32 {
        self.limit.map_or(mtu, |limit| limit.min(mtu))
    }

    /// Over all ways: a larger packet comes back with an error from the host's route, which has this MTU.
    /// With `auto`, as if all were tunnels: a node may get behind a router at any time.
    pub(super) fn narrowest(&self, model: &Model) -> Narrowest {
        let is_direct = self.encapsulation == Encapsulation::Direct;
        let uplinks: Vec<&str> = self.uplinks.iter().map(|link| link.name.as_str()).collect();
        let mut narrowest = Narrowest {
            pod_mtu: if is_direct { self.uplink_mtu() } else { self.tunnel_mtu() },
            underlay_mtu: self.uplink_mtu(),
            what: format!("the uplink ({})", uplinks.join(", ")),
        };
        for peer in model.peers() {
            let outer = if is_direct { None } else { self.outer_address(peer) };
            let families = [true, false].into_iter().filter(|ipv4| {
                peer.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V4(_)) == *ipv4)
            });
            let direct = families.filter_map(|ipv4| {
                peer.addresses.iter().copied().find(|address| address.is_ipv4() == ipv4)
            });
            let ends: Vec<IpAddr> =
                if is_direct { direct.collect() } else { outer.into_iter().collect() };
            for end in ends {
                let underlay_mtu = self.underlay_mtu(&end);
                let pod_mtu = if is_direct { underlay_mtu } else { self.mtu_inside(&end) };
                if pod_mtu < narrowest.pod_mtu {
                    let what = format!("the way to {} ({end})", peer.name);
                    narrowest = Narrowest { pod_mtu, underlay_mtu, what };
                }
            }
        }
        if self.limit == Some(narrowest.underlay_mtu) {
            "--mtu".clone_into(&mut narrowest.what);
        }
        narrowest
    }

    /// The next hops of what the programs send past the host stack, but for those whose MAC somebody wrote
    /// down: direct packets, and tunnel packets over IPv4.
    pub(super) fn neighbours(
        &self,
        peers: &[Peer<'_>],
        fixed: &BTreeSet<Neighbour>,
    ) -> BTreeSet<Neighbour> {
        let can_resolve = |name: &str| {
            self.interfaces.get(name).is_some_and(|link| link.up && link.medium == Medium::Ethernet)
        };
        let ways = peers.iter().flat_map(Peer::ways);
        let nodes = ways.filter_map(|way| way.node.filter(|node| !way.tunnel || node.is_ipv4()));
        let mut neighbours = BTreeSet::new();
        for node in nodes {
            let hops = self.routes.get(&node).into_iter().flat_map(|route| &route.hops);
            neighbours.extend(hops.filter(|hop| can_resolve(&hop.device)).map(|hop| Neighbour {
                device: hop.device.clone(),
                address: hop.gateway.unwrap_or(node),
            }));
        }
        neighbours.retain(|neighbour| !fixed.contains(neighbour));
        neighbours
    }

    pub(super) fn problems(&self, peers: &[Peer<'_>]) -> Vec<String> {
        let mut problems = Vec::new();
        let found = self.uplinks.iter().map(|link| link.mtu).min();
        if let (Some(limit), Some(found)) = (self.limit, found)
            && limit > found
        {
            problems.push(format!(
                "--mtu {limit} is more than the uplinks carry ({found} bytes), which is used: raise \
                 the MTU of the uplinks, or lower --mtu"
            ));
        }
        problems.extend(self.unreachable(peers));
        if self.encapsulation == Encapsulation::Direct {
            problems.extend(self.direct_problems(peers));
        }
        problems
    }

    fn unreachable(&self, peers: &[Peer<'_>]) -> Option<String> {
        let is_lost = |peer: &&Peer<'_>| {
            peer.ways().filter_map(|way| way.node).any(|node| !self.routes.contains_key(&node))
        };
        let lost: BTreeSet<&str> =
            peers.iter().filter(is_lost).map(|peer| peer.node.name.as_str()).collect();
        (!lost.is_empty()).then(|| {
            format!(
                "the kernel has no route to {}: `ip route get ADDRESS from OWN-ADDRESS` with the \
                 addresses of the node file shows why",
                some_of(&lost)
            )
        })
    }

    /// Plain packets of other nodes are taken from the uplinks, and by a program that reads an Ethernet
    /// header.
    fn direct_problems(&self, peers: &[Peer<'_>]) -> Vec<String> {
        let mut users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for peer in peers {
            let nodes = peer.ways().filter_map(|way| way.node);
            for hop in nodes.filter_map(|node| self.routes.get(&node)).flat_map(|way| &way.hops) {
                users.entry(&hop.device).or_default().insert(&peer.node.name);
            }
        }
        let is_bare =
            |name: &str| self.interfaces.get(name).is_some_and(|link| link.medium == Medium::Bare);
        let uplinks: BTreeSet<&str> = self.uplinks.iter().map(|link| link.name.as_str()).collect();
        let devices: BTreeSet<&str> =
            uplinks.iter().copied().chain(users.keys().copied()).collect();
        let mut problems = Vec::new();
        for name in devices {
            if is_bare(name) {
                problems.push(format!(
                    "{name} has no Ethernet header, and nodes cannot exchange packets of pods through \
                     it as they are: run all agents with `--encapsulation vxlan`"
                ));
            } else if !uplinks.contains(name) && !uplinks.is_empty() {
                problems.push(format!(
                    "{} is reached through {name}, which is no uplink: add `--uplink {name}`, or what \
                     arrives there goes past the data plane",
                    users.get(name).map(some_of).unwrap_or_default()
                ));
            }
        }
        problems
    }
}

const fn overhead(outer_ipv4: bool) -> u32 {
    if outer_ipv4 { OVERHEAD_IPV4 } else { OVERHEAD_IPV6 }
}

fn some_of(names: &BTreeSet<&str>) -> String {
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
