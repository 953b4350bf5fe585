//! From node objects to nodes. Pure. What is wrong with one object costs that node alone, or a part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::seen::{Seen, Standing};
use crate::model::{Encapsulation, Network, Node};
use crate::nodes::validate::{address_fault, cidr_fault, outside_fault, overlap};

/// What the node objects come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Nodes that can be reached, by name.
    pub(super) nodes: Vec<Arc<Node>>,
    /// What an operator should look at, by the name of the node.
    pub(super) doubts: Vec<Doubt>,
    /// Why this node can have no new pods.
    pub(super) waiting: Option<String>,
}

/// Something about a node object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Doubt {
    /// Whose.
    pub(super) node: String,
    /// What, and what becomes of the node.
    pub(super) what: String,
    /// Passes by itself when nodes join.
    pub(super) is_passing: bool,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {}: {}", self.node, self.what)
    }
}

/// A node whose fields are well formed.
struct Draft<'a> {
    name: &'a str,
    standing: Standing,
    is_own: bool,
    addresses: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    doubts: Vec<Doubt>,
}

impl Draft<'_> {
    fn doubt(&mut self, what: String) {
        self.doubts.push(Doubt { node: self.name.to_owned(), what, is_passing: false });
    }

    fn waits(&mut self, what: String) {
        self.doubts.push(Doubt { node: self.name.to_owned(), what, is_passing: true });
    }
}

/// The nodes that these objects describe.
///
/// 1. What is not well formed, or cannot be a pod network or a node's address, is left out.
/// 2. A pod network that overlaps another belongs to the older node.
/// 3. An address inside a pod network is none.
/// 4. An address of this node belongs to nobody else.
/// 5. A pod network that no address leads to is left out.
/// 6. A node without pod network or without address is left out.
pub(super) fn resolve(seen: &BTreeMap<String, Seen>, own: &str, network: &Network) -> Resolved {
    let mut by_age: Vec<(&String, &Seen)> = seen.iter().collect();
    // What the API server no longer stands behind has no claim against what it says.
    by_age.sort_by_key(|(name, seen)| (seen.standing != Standing::Registered, seen.created, *name));
    let mut drafts: Vec<Draft<'_>> =
        by_age.into_iter().map(|(name, seen)| draft(name, seen, own, network)).collect();
    let networks = claim_networks(&mut drafts);
    addresses_among_pods(&mut drafts, networks, network);
    addresses_twice(&mut drafts);
    unreachable(&mut drafts, network);
    drafts.sort_by_key(|draft| draft.name);
    conclude(drafts, own)
}

fn draft<'a>(name: &'a str, seen: &Seen, own: &str, network: &Network) -> Draft<'a> {
    let mut draft = Draft {
        name,
        standing: seen.standing,
        is_own: name == own,
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        doubts: Vec::new(),
    };
    for text in &seen.pod_cidrs {
        match text.parse::<IpNet>() {
            Ok(cidr) => match cidr_fault(&cidr).or_else(|| outside_fault(&cidr, network)) {
                Some(fault) => draft.doubt(format!("its pod network is left out: {fault}")),
                None => draft.pod_cidrs.push(cidr),
            },
            Err(_) => draft.doubt(format!("\"{text}\" is no pod network: it is left out")),
        }
    }
    let internal = seen.addresses.iter().filter(|address| address.r#type == "InternalIP");
    for text in internal.map(|address| &address.address) {
        match text.parse::<IpAddr>().map(|address| (address, address_fault(&address))) {
            Ok((_, Some(fault))) => draft.doubt(format!("its InternalIP is left out: {fault}")),
            Ok((address, None)) if draft.addresses.contains(&address) => {}
            Ok((address, None)) => draft.addresses.push(address),
            Err(_) => draft.doubt(format!("its InternalIP \"{text}\" is no address: left out")),
        }
    }
    if seen.pod_cidrs.is_empty() {
        draft.waits(
            "it has no pod network yet (spec.podCIDRs): nothing leads there until it has. The \
             controller manager gives them, with --allocate-node-cidrs"
                .to_owned(),
        );
    }
    if !seen.addresses.iter().any(|address| address.r#type == "InternalIP") {
        let has: BTreeSet<&str> =
            seen.addresses.iter().map(|address| address.r#type.as_str()).collect();
        let has = if has.is_empty() {
            "no address at all".to_owned()
        } else {
            format!("only {}", has.into_iter().collect::<Vec<_>>().join(", "))
        };
        draft.waits(format!(
            "it has no InternalIP ({has}): nothing leads there until it has. Its kubelet gives it, \
             or the cloud's controller"
        ));
    }
    draft
}

/// Takes from each what an older one has; returns who has what, by the first address.
fn claim_networks<'a>(drafts: &mut [Draft<'a>]) -> BTreeMap<IpAddr, (IpNet, &'a str)> {
    let mut claimed: BTreeMap<IpAddr, (IpNet, &'a str)> = BTreeMap::new();
    for draft in drafts {
        let name = draft.name;
        for cidr in std::mem::take(&mut draft.pod_cidrs) {
            // Those that are claimed are disjoint: only the neighbours on both sides can overlap.
            let before = claimed.range(..=cidr.network()).next_back();
            let after = claimed.range(cidr.network()..).next();
            let owner = before.into_iter().chain(after).map(|(_, owner)| *owner);
            let other = owner.into_iter().find(|(other, _)| overlap(other, &cidr));
            match other {
                Some((other, owner)) if owner == name => draft
                    .doubt(format!("{cidr} overlaps its own {other}: the first of both counts")),
                Some((other, owner)) => draft.doubt(format!(
                    "its pod network {cidr} overlaps {other} of node {owner}, which is older and \
                     keeps it: delete one of the two nodes and let it register again"
                )),
                None => {
                    claimed.insert(cidr.network(), (cidr, name));
                    draft.pod_cidrs.push(cidr);
                }
            }
        }
    }
    claimed
}

fn addresses_among_pods(
    drafts: &mut [Draft<'_>],
    claimed: BTreeMap<IpAddr, (IpNet, &str)>,
    network: &Network,
) {
    let mut cidrs: Vec<IpNet> = claimed.into_values().map(|(cidr, _)| cidr).collect();
    cidrs.extend(&network.cluster_cidrs);
    let cidrs = IpNet::aggregate(&cidrs);
    for draft in drafts {
        for address in std::mem::take(&mut draft.addresses) {
            // Sorted and disjoint after aggregation.
            let at = cidrs.partition_point(|cidr| cidr.network() <= address);
            let before = at.checked_sub(1).and_then(|at| cidrs.get(at));
            match before.filter(|cidr| cidr.contains(&address)) {
                Some(cidr) => draft.doubt(format!(
                    "its InternalIP {address} lies inside the pod network {cidr} and is left out: a \
                     node's own address must be outside all pod networks"
                )),
                None => draft.addresses.push(address),
            }
        }
    }
}

fn addresses_twice(drafts: &mut [Draft<'_>]) {
    let own: Vec<IpAddr> =
        drafts.iter().filter(|draft| draft.is_own).flat_map(|own| own.addresses.clone()).collect();
    let mut first: HashMap<IpAddr, &str> = HashMap::new();
    for draft in drafts {
        for address in std::mem::take(&mut draft.addresses) {
            if !draft.is_own && own.contains(&address) {
                draft.doubt(format!(
                    "its InternalIP {address} is this node's: left out; is it a node object of \
                     this machine's past?"
                ));
                continue;
            }
            // Which one lives there is not ours to say. A wrong one only has packets for itself.
            let other = *first.entry(address).or_insert(draft.name);
            if other != draft.name {
                draft.doubt(format!(
                    "its InternalIP {address} is also that of node {other}: one of the two does not \
                     live there; delete it"
                ));
            }
            draft.addresses.push(address);
        }
    }
}

fn unreachable(drafts: &mut [Draft<'_>], network: &Network) {
    let family = |ipv4: bool| if ipv4 { "IPv4" } else { "IPv6" };
    let families = |addresses: &[IpAddr]| -> BTreeSet<bool> {
        addresses.iter().map(IpAddr::is_ipv4).collect()
    };
    let own = drafts.iter().find(|draft| draft.is_own).map(|own| families(&own.addresses));
    for draft in drafts.iter_mut().filter(|draft| !draft.addresses.is_empty()) {
        let has = families(&draft.addresses);
        if network.encapsulation == Encapsulation::Direct {
            for cidr in std::mem::take(&mut draft.pod_cidrs) {
                if has.contains(&cidr.addr().is_ipv4()) {
                    draft.pod_cidrs.push(cidr);
                    continue;
                }
                draft.doubt(format!(
                    "it has the pod network {cidr} and no {} InternalIP, so in mode direct nothing \
                     leads there: add one, or choose --encapsulation vxlan",
                    family(cidr.addr().is_ipv4())
                ));
            }
        } else if own.as_ref().is_some_and(|own| !own.is_empty() && own.is_disjoint(&has)) {
            draft.doubt(
                "it and this node have no addresses of the same family: VXLAN cannot connect them"
                    .to_owned(),
            );
            draft.pod_cidrs.clear();
        }
    }
}

fn conclude(drafts: Vec<Draft<'_>>, own_name: &str) -> Resolved {
    let mut resolved = Resolved::default();
    let mut own_waits = Some(format!(
        "there is no node object called \"{own_name}\": the kubelet makes it, under its own name; \
         give that one in --node-name"
    ));
    for mut draft in drafts {
        if draft.is_own {
            own_waits = waiting(&mut draft);
        }
        resolved.doubts.append(&mut draft.doubts);
        if !draft.addresses.is_empty() && !draft.pod_cidrs.is_empty() {
            resolved.nodes.push(Arc::new(Node {
                name: draft.name.to_owned(),
                addresses: draft.addresses,
                pod_cidrs: draft.pod_cidrs,
            }));
        }
    }
    resolved.waiting = own_waits;
    resolved
}

/// Why this node can have no pods; then that is not also among its doubts.
fn waiting(own: &mut Draft<'_>) -> Option<String> {
    let is_usable = !own.addresses.is_empty() && !own.pod_cidrs.is_empty();
    if is_usable && own.standing == Standing::Registered {
        return None;
    }
    let doubts = std::mem::take(&mut own.doubts).into_iter().map(|doubt| doubt.what);
    let name = own.name;
    let why = match own.standing {
        Standing::Deleted => vec![format!(
            "the node object \"{name}\" was deleted: pods that run keep their network, new ones \
             wait until the kubelet has registered the node again (restart it)"
        )],
        Standing::Renewed => vec![format!(
            "the node object \"{name}\" was made again and has no pod network yet (spec.podCIDRs): \
             pods that run keep their network, new ones wait"
        )],
        Standing::Registered => doubts.collect(),
    };
    Some(why.join("; "))
}

#[cfg(test)]
mod tests;
