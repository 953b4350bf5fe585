//! What must hold between the nodes of a file, and between them and the settings.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use super::{Fault, Place};
use crate::model::{Encapsulation, Network, Node};

/// What a fault is about, by the numbers of the node and of the element.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spot {
    Name(usize),
    Address(usize, usize),
    PodCidr(usize, usize),
}

/// An element of a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Address(usize),
    PodCidr(usize),
}

impl Part {
    /// Of the node with this number.
    pub(super) fn of(self, node: usize) -> Spot {
        match self {
            Self::Address(at) => Spot::Address(node, at),
            Self::PodCidr(at) => Spot::PodCidr(node, at),
        }
    }
}

/// Tells what is wrong with a node, whatever the others are.
pub(super) fn check_alone(node: &Node, network: &Network, mut tell: impl FnMut(Part, String)) {
    for (at, address) in node.addresses.iter().enumerate() {
        if let Some(what) = address_fault(address) {
            tell(Part::Address(at), what);
        }
    }
    for (at, cidr) in node.pod_cidrs.iter().enumerate() {
        for what in cidr_fault(cidr).into_iter().chain(outside_fault(cidr, network)) {
            tell(Part::PodCidr(at), what);
        }
    }
}

/// Adds what is wrong between nodes to `faults`. They are not complete where something could not be read.
pub(super) fn check(
    nodes: &[Arc<Node>],
    own_name: &str,
    network: &Network,
    are_complete: bool,
    place: &dyn Fn(Spot) -> Place,
    faults: &mut Vec<Fault>,
) {
    let mut check = Check { nodes, place, faults };
    check.names(own_name);
    check.twice();
    let claims = check.overlaps();
    check.addresses_among_pods(&claims, network);
    if are_complete {
        check.families(own_name, network);
    }
}

/// What is wrong with a network of pods by itself.
pub(crate) fn cidr_fault(cidr: &IpNet) -> Option<String> {
    let IpNet::V6(v6) = cidr else { return range_fault(cidr, 30) };
    let mapped = ipnet::Ipv6Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
    if mapped.contains(&v6.network()) || v6.contains(&mapped.network()) {
        return Some(format!(
            "{cidr} covers IPv4-mapped addresses (::ffff:0:0/96), which stand for IPv4 here: \
             write the IPv4 network itself"
        ));
    }
    range_fault(cidr, 126)
}

fn range_fault(cidr: &IpNet, longest: u8) -> Option<String> {
    if cidr.addr() != cidr.network() {
        let network = cidr.trunc();
        return Some(format!("{cidr} has bits set behind the prefix: write {network}"));
    }
    if cidr.prefix_len() > longest {
        return Some(format!(
            "{cidr} is too small: it needs room for its own address, the node's and one pod, \
             at least a /{longest}"
        ));
    }
    SPECIAL.iter().find(|special| overlap(special, cidr)).map(|special| {
        format!("{cidr} overlaps {special}, which pods cannot use: choose a private network")
    })
}

static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8"]
        .iter()
        .filter_map(|special| special.parse().ok())
        .collect()
});

pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

pub(super) fn address_fault(address: &IpAddr) -> Option<String> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Some(format!("{address} is an IPv4-mapped address: write {v4}"));
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let unusable =
        address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local;
    unusable.then(|| {
        format!("{address} cannot be a node's address: give the one that other nodes reach it by")
    })
}

pub(super) fn outside_fault(cidr: &IpNet, network: &Network) -> Option<String> {
    let clusters = &network.cluster_cidrs;
    if clusters.is_empty() || clusters.iter().any(|cluster| cluster.contains(cidr)) {
        return None;
    }
    let known: Vec<String> = clusters.iter().map(ToString::to_string).collect();
    Some(format!(
        "{cidr} is outside the cluster's networks ({}): correct it, or give another --cluster-cidr",
        known.join(", ")
    ))
}

/// A pod network, in the order of their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    is_ipv6: bool,
    start: [u64; 2],
    bits: u8,
    node: u32,
    at: u32,
}

struct Check<'a> {
    nodes: &'a [Arc<Node>],
    place: &'a dyn Fn(Spot) -> Place,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Check<'a> {
    fn add(&mut self, spot: Spot, what: impl Into<String>) {
        self.faults.push((self.place)(spot).fault(what));
    }

    fn line(&self, spot: Spot) -> usize {
        (self.place)(spot).line
    }

    fn names(&mut self, own_name: &str) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            if name.is_empty() {
                self.add(Spot::Name(at), "is empty: give the node a name");
            } else if let Some(first) = seen.insert(name, at) {
                let line = self.line(Spot::Name(first));
                let what = format!("\"{name}\" is also the name of the node at line {line}");
                self.add(Spot::Name(at), format!("{what}: each node has a name of its own"));
            }
        }
        if !seen.contains_key(own_name) {
            let mut known: Vec<&str> = seen.keys().copied().take(20).collect();
            known.sort_unstable();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.faults.push(Fault {
                line: None,
                field: "node".to_owned(),
                what: format!(
                    "no node is called \"{own_name}\", as this one is (nodes in the file: {known}): \
                     add it, or correct --node-name"
                ),
            });
        }
    }

    fn twice(&mut self) {
        let mut seen: HashMap<IpAddr, (usize, usize)> = HashMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for (at, address) in node.addresses.iter().enumerate() {
                let Some((owner, of_owner)) = seen.insert(*address, (number, at)) else { continue };
                let name = self.nodes.get(owner).map(|node| node.name.as_str()).unwrap_or_default();
                let line = self.line(Spot::Address(owner, of_owner));
                let what = format!("{address} is also an address of \"{name}\" at line {line}");
                let spot = Spot::Address(number, at);
                self.add(spot, format!("{what}: an address belongs to one node"));
            }
        }
    }

    /// Sorted by start, a network can only overlap one that began before it and has not ended. Returns those
    /// that overlap none before them.
    fn overlaps(&mut self) -> Vec<Claim> {
        let mut claims = self.claims();
        let mut outer: Option<Claim> = None;
        claims.retain(|claim| {
            let before = outer.and_then(|outer| Some((outer, self.cidr(&outer)?)));
            let (Some((other, theirs)), Some(cidr)) = (before, self.cidr(claim)) else {
                outer = Some(*claim);
                return true;
            };
            if !overlap(&theirs.0, &cidr.0) {
                outer = Some(*claim);
                return true;
            }
            let line = self.line(Spot::PodCidr(other.node as usize, other.at as usize));
            let what = format!(
                "{} of \"{}\" overlaps {} of \"{}\" at line {line}: \
                 give each node networks of its own",
                cidr.0, cidr.1, theirs.0, theirs.1
            );
            self.add(Spot::PodCidr(claim.node as usize, claim.at as usize), what);
            false
        });
        claims
    }

    fn claims(&self) -> Vec<Claim> {
        let count = self.nodes.iter().map(|node| node.pod_cidrs.len()).sum();
        let mut claims = Vec::with_capacity(count);
        for (node, cidrs) in (0..).zip(self.nodes.iter().map(|node| &node.pod_cidrs)) {
            claims.extend((0..).zip(cidrs).map(|(at, cidr)| Claim {
                is_ipv6: matches!(cidr, IpNet::V6(_)),
                start: halves(cidr.network()),
                bits: cidr.prefix_len(),
                node,
                at,
            }));
        }
        claims.sort_unstable();
        claims
    }

    /// The network, and the name of its node.
    fn cidr(&self, claim: &Claim) -> Option<(IpNet, &'a str)> {
        let node = self.nodes.get(claim.node as usize)?;
        Some((*node.pod_cidrs.get(claim.at as usize)?, &node.name))
    }

    fn addresses_among_pods(&mut self, claims: &[Claim], network: &Network) {
        for (number, node) in self.nodes.iter().enumerate() {
            for (at, address) in node.addresses.iter().enumerate() {
                let of_cluster = network.cluster_cidrs.iter().find(|cidr| cidr.contains(address));
                // Sorted and disjoint: only the last that starts at or before it can match.
                let key = (address.is_ipv6(), halves(*address));
                let behind = claims.partition_point(|claim| (claim.is_ipv6, claim.start) <= key);
                let before = behind.checked_sub(1).and_then(|at| self.cidr(claims.get(at)?));
                let of_node = before.map(|(cidr, _)| cidr).filter(|cidr| cidr.contains(address));
                if let Some(cidr) = of_cluster.copied().or(of_node) {
                    let what = format!(
                        "{address} lies inside the pod network {cidr}: \
                         a node's own address must be outside all pod networks"
                    );
                    self.add(Spot::Address(number, at), what);
                }
            }
        }
    }

    /// Each node needs pools of the same families, and an address that leads to them.
    fn families(&mut self, own_name: &str, network: &Network) {
        let name = |ipv4: bool| if ipv4 { "IPv4" } else { "IPv6" };
        let all = self.nodes.iter().map(|node| pool_families(node));
        let all = all.fold([false; 2], |all, has| [all[0] || has[0], all[1] || has[1]]);
        let own = self.nodes.iter().find(|node| node.name == own_name);
        let own = own.map(|node| address_families(node));
        for (at, node) in self.nodes.iter().enumerate() {
            let (pools, addresses) = (pool_families(node), address_families(node));
            if pools == [false; 2] || addresses == [false; 2] {
                continue;
            }
            for ipv4 in beyond(all, pools) {
                let what = format!(
                    "\"{}\" has no {} pod network while other nodes have one: \
                     add one to its pod_cidrs, or remove the family everywhere",
                    node.name,
                    name(ipv4)
                );
                self.add(Spot::Name(at), what);
            }
            if network.encapsulation == Encapsulation::Direct {
                for ipv4 in beyond(pools, addresses) {
                    let what = format!(
                        "\"{}\" has an {family} pod network and no {family} address, so in mode direct \
                         nothing leads there: add an address, or choose --encapsulation vxlan",
                        node.name,
                        family = name(ipv4)
                    );
                    self.add(Spot::Name(at), what);
                }
            } else if own
                .is_some_and(|own| !own.iter().zip(addresses).any(|(own, has)| *own && has))
            {
                let what = format!(
                    "\"{}\" and this node (\"{own_name}\") have no addresses of the same family: \
                     add one, or VXLAN cannot connect them",
                    node.name
                );
                self.add(Spot::Name(at), what);
            }
        }
    }
}

/// Numbers in the order of the addresses of one family.
fn halves(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(ip) => [0, u64::from(u32::from(ip))],
        IpAddr::V6(ip) => [(u128::from(ip) >> 64) as u64, u128::from(ip) as u64],
    }
}

/// Whether there are some of IPv6 and of IPv4.
fn pool_families(node: &Node) -> [bool; 2] {
    [false, true].map(|ipv4| node.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V4(_)) == ipv4))
}

fn address_families(node: &Node) -> [bool; 2] {
    [false, true].map(|ipv4| node.addresses.iter().any(|address| address.is_ipv4() == ipv4))
}

/// The families of the one that the other has not; true is IPv4.
fn beyond(one: [bool; 2], other: [bool; 2]) -> impl Iterator<Item = bool> {
    let families = [false, true].into_iter().zip(one.into_iter().zip(other));
    families.filter(|(_, (one, other))| *one && !other).map(|(ipv4, _)| ipv4)
}
