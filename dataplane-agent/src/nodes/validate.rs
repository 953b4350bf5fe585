//! What must hold between the nodes of a file, and between them and the settings.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Fault, Placed, PlacedNode};
use crate::model::{Encapsulation, Network};

/// Adds what is wrong to `faults`.
pub(super) fn check(
    nodes: &[PlacedNode],
    own_name: &str,
    network: &Network,
    faults: &mut Vec<Fault>,
) {
    // A family may only seem to be missing because its address could not be read.
    let complete = faults.is_empty();
    names(nodes, own_name, faults);
    for address in nodes.iter().flat_map(|node| &node.addresses) {
        faults.extend(address_fault(&address.value).map(|what| address.fault(what)));
    }
    for cidr in nodes.iter().flat_map(|node| &node.pod_cidrs) {
        faults.extend(cidr_fault(&cidr.value).map(|what| cidr.fault(what)));
        faults.extend(outside_fault(&cidr.value, network).map(|what| cidr.fault(what)));
    }
    twice(nodes, faults);
    overlaps(nodes, faults);
    addresses_among_pods(nodes, network, faults);
    if complete {
        families(nodes, own_name, network, faults);
    }
}

/// What is wrong with a network of pods by itself.
pub(crate) fn cidr_fault(cidr: &IpNet) -> Option<String> {
    let IpNet::V6(v6) = cidr else { return range_fault(cidr, 30) };
    let mapped = "::ffff:0:0/96"
        .parse()
        .is_ok_and(|m: ipnet::Ipv6Net| m.contains(&v6.network()) || v6.contains(&m.network()));
    if mapped {
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
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8"]
        .iter()
        .filter_map(|special| special.parse::<IpNet>().ok())
        .find(|special| overlap(special, cidr))
        .map(|special| {
            format!("{cidr} overlaps {special}, which pods cannot use: choose a private network")
        })
}

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

fn names(nodes: &[PlacedNode], own_name: &str, faults: &mut Vec<Fault>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for Placed { value, line, field } in nodes.iter().map(|node| &node.name) {
        let fault = |what| Fault { line: Some(*line), field: field.clone(), what };
        if value.is_empty() {
            faults.push(fault("is empty: give the node a name".to_owned()));
        } else if let Some(first) = seen.insert(value, *line) {
            let what = format!("\"{value}\" is also the name of the node at line {first}");
            faults.push(fault(format!("{what}: each node has a name of its own")));
        }
    }
    if !seen.contains_key(own_name) {
        let mut known: Vec<&str> = seen.keys().copied().take(20).collect();
        known.sort_unstable();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        faults.push(Fault {
            line: None,
            field: "node".to_owned(),
            what: format!(
                "no node is called \"{own_name}\", as this one is (nodes in the file: {known}): \
                 add it, or correct --node-name"
            ),
        });
    }
}

fn twice(nodes: &[PlacedNode], faults: &mut Vec<Fault>) {
    let mut seen: HashMap<IpAddr, (usize, &str)> = HashMap::new();
    for node in nodes {
        for address in &node.addresses {
            let owner = (address.line, node.name.value.as_str());
            if let Some((line, name)) = seen.insert(address.value, owner) {
                faults.push(address.fault(format!(
                    "{} is also an address of \"{name}\" at line {line}: \
                     an address belongs to one node",
                    address.value
                )));
            }
        }
    }
}

/// Sorted by start, a network can only overlap one that began before it and has not ended.
fn overlaps(nodes: &[PlacedNode], faults: &mut Vec<Fault>) {
    let mut all: Vec<(&Placed<IpNet>, &str)> = nodes
        .iter()
        .flat_map(|node| node.pod_cidrs.iter().map(|cidr| (cidr, node.name.value.as_str())))
        .collect();
    all.sort_by_key(|(cidr, _)| (cidr.value.network(), cidr.value.prefix_len()));
    let mut outer: Option<(&Placed<IpNet>, &str)> = None;
    for (cidr, name) in all {
        match outer {
            Some((other, owner)) if overlap(&other.value, &cidr.value) => {
                faults.push(cidr.fault(format!(
                    "{} of \"{name}\" overlaps {} of \"{owner}\" at line {}: \
                     give each node networks of its own",
                    cidr.value, other.value, other.line
                )));
            }
            Some(_) | None => outer = Some((cidr, name)),
        }
    }
}

fn addresses_among_pods(nodes: &[PlacedNode], network: &Network, faults: &mut Vec<Fault>) {
    let mut cidrs: Vec<IpNet> =
        nodes.iter().flat_map(|node| node.pod_cidrs.iter().map(|cidr| cidr.value)).collect();
    cidrs.extend(&network.cluster_cidrs);
    let cidrs = IpNet::aggregate(&cidrs);
    for address in nodes.iter().flat_map(|node| &node.addresses) {
        // Sorted and disjoint after aggregation: only the last that starts at or before it can match.
        let at = cidrs.partition_point(|cidr| cidr.network() <= address.value);
        let before = at.checked_sub(1).and_then(|at| cidrs.get(at));
        if let Some(cidr) = before.filter(|cidr| cidr.contains(&address.value)) {
            faults.push(address.fault(format!(
                "{} lies inside the pod network {cidr}: \
                 a node's own address must be outside all pod networks",
                address.value
            )));
        }
    }
}

/// Each node needs pools of the same families, and an address that leads to them.
fn families(nodes: &[PlacedNode], own_name: &str, network: &Network, faults: &mut Vec<Fault>) {
    let family = |ipv4: bool| if ipv4 { "IPv4" } else { "IPv6" };
    let all: BTreeSet<bool> = nodes.iter().flat_map(pool_families).collect();
    let own = nodes.iter().find(|node| node.name.value == own_name).map(address_families);
    for node in nodes {
        let (pools, addresses) = (pool_families(node), address_families(node));
        if pools.is_empty() || addresses.is_empty() {
            continue;
        }
        let name = &node.name;
        for missing in all.difference(&pools) {
            faults.push(name.fault(format!(
                "\"{}\" has no {} pod network while other nodes have one: \
                 add one to its pod_cidrs, or remove the family everywhere",
                name.value,
                family(*missing)
            )));
        }
        if network.encapsulation == Encapsulation::Direct {
            for missing in pools.difference(&addresses) {
                faults.push(name.fault(format!(
                    "\"{}\" has an {family} pod network and no {family} address, so in mode direct \
                     nothing leads there: add an address, or choose --encapsulation vxlan",
                    name.value,
                    family = family(*missing)
                )));
            }
        } else if own.as_ref().is_some_and(|own| own.is_disjoint(&addresses)) {
            faults.push(name.fault(format!(
                "\"{}\" and this node (\"{own_name}\") have no addresses of the same family: \
                 add one, or VXLAN cannot connect them",
                name.value
            )));
        }
    }
}

fn pool_families(node: &PlacedNode) -> BTreeSet<bool> {
    node.pod_cidrs.iter().map(|cidr| matches!(cidr.value, IpNet::V4(_))).collect()
}

fn address_families(node: &PlacedNode) -> BTreeSet<bool> {
    node.addresses.iter().map(|address| address.value.is_ipv4()).collect()
}
