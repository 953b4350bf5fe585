//! Compares the state that is there with the one that should be. Pure.

use dataplane_core::abi::Addr;
use ipnet::IpNet;

use crate::kernel::{Action, AddrKey, LinkHook, State};

/// Of one action; a step has its time limit.
const NODES_AT_ONCE: usize = 4096;

/// The steps from `observed` to `wanted`, in an order that never breaks what works: what others stand
/// on comes first (devices before addresses, maps before the programs that read them), and removals
/// come last, in the reverse order.
pub fn plan(observed: &State, wanted: &State) -> Vec<Action> {
    let mut actions = puts(observed, wanted);
    actions.extend(removals(observed, wanted));
    actions
}

fn puts(observed: &State, wanted: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    // First: it keeps strangers out by the tunnel device while that has no program yet.
    if let Some(nft) = wanted.nft.as_ref().filter(|nft| observed.nft.as_ref() != Some(nft)) {
        actions.push(Action::PutNft(nft.clone()));
    }
    for (name, device) in &wanted.devices {
        if observed.devices.get(name) != Some(device) {
            actions.push(Action::PutDevice { name: name.clone(), device: device.clone() });
        }
    }
    actions.extend(sysctls(observed, wanted));
    for (interface, aggregates) in &wanted.aggregates {
        if observed.aggregates.get(interface).copied().unwrap_or_default() != *aggregates {
            let (interface, aggregates) = (interface.clone(), *aggregates);
            actions.push(Action::SetAggregates { interface, aggregates });
        }
    }
    actions
        .extend(wanted.addresses.difference(&observed.addresses).copied().map(Action::AddAddress));
    let neighbours = wanted.neighbours.difference(&observed.neighbours).cloned();
    actions.extend(neighbours.map(Action::PutNeighbour));
    let mut nodes = wanted.nodes.beyond(&observed.nodes).peekable();
    while nodes.peek().is_some() {
        actions.push(Action::PutNodes(nodes.by_ref().take(NODES_AT_ONCE).collect()));
    }
    for (key, entry) in &wanted.pods {
        if observed.pods.get(key) != Some(entry) {
            actions.push(Action::PutPod { address: Addr::from(*key), entry: *entry });
        }
    }
    if let Some(config) = wanted.config.filter(|config| observed.config != Some(*config)) {
        actions.push(Action::PutConfig(config));
    }
    for ((interface, hook), program) in &wanted.links {
        if observed.links.get(&(interface.clone(), *hook)) != Some(program) {
            actions.push(attach(interface, *hook, program));
        }
    }
    for (destination, route) in &wanted.routes {
        if observed.routes.get(destination) != Some(route) {
            actions.push(Action::PutRoute { destination: *destination, route: route.clone() });
        }
    }
    actions
}

fn removals(observed: &State, wanted: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    for destination in observed.routes.keys().filter(|key| !wanted.routes.contains_key(*key)) {
        actions.push(Action::RemoveRoute { destination: *destination });
    }
    for (interface, hook) in observed.links.keys().filter(|key| !wanted.links.contains_key(*key)) {
        actions.push(Action::Detach { interface: interface.clone(), hook: *hook });
    }
    for (key, entry) in observed.pods.iter().filter(|(key, _)| !wanted.pods.contains_key(*key)) {
        actions.push(Action::RemovePod { address: Addr::from(*key), generation: entry.generation });
    }
    let mut nodes = observed.nodes.prefixes_beyond(&wanted.nodes).peekable();
    while nodes.peek().is_some() {
        actions.push(Action::RemoveNodes(nodes.by_ref().take(NODES_AT_ONCE).collect()));
    }
    let neighbours = observed.neighbours.difference(&wanted.neighbours).cloned();
    actions.extend(neighbours.map(Action::RemoveNeighbour));
    actions.extend(
        observed.addresses.difference(&wanted.addresses).copied().map(Action::RemoveAddress),
    );
    for name in observed.devices.keys().filter(|key| !wanted.devices.contains_key(*key)) {
        actions.push(Action::RemoveDevice { name: name.clone() });
    }
    if observed.nft.is_some() && wanted.nft.is_none() {
        actions.push(Action::RemoveNft);
    }
    actions
}

/// `accept_ra` before forwarding: turning forwarding on purges the routes of devices without it.
fn sysctls(observed: &State, wanted: &State) -> Vec<Action> {
    let mut differing: Vec<_> = wanted
        .sysctls
        .iter()
        .filter(|(path, value)| {
            observed.sysctls.get(*path).is_none_or(|has| has.trim() != value.as_str())
        })
        .collect();
    differing.sort_by_key(|(path, _)| !path.ends_with("/accept_ra"));
    differing
        .into_iter()
        .map(|(path, value)| Action::SetSysctl { path: path.clone(), value: value.clone() })
        .collect()
}

fn attach(interface: &str, hook: LinkHook, program: &str) -> Action {
    Action::Attach { interface: interface.to_owned(), hook, program: program.to_owned() }
}

/// All kinds of actions: names that metrics have as a label.
pub const KINDS: [&str; 11] = [
    "address",
    "aggregate",
    "config",
    "device",
    "link",
    "neighbour",
    "nftables",
    "node",
    "pod",
    "route",
    "sysctl",
];

/// What an action changes, for counters and for people.
pub fn kind(action: &Action) -> &'static str {
    match action {
        Action::PutDevice { .. } | Action::RemoveDevice { .. } => "device",
        Action::SetAggregates { .. } => "aggregate",
        Action::AddAddress(_) | Action::RemoveAddress(_) => "address",
        Action::PutRoute { .. } | Action::RemoveRoute { .. } => "route",
        Action::PutNeighbour(_) | Action::RemoveNeighbour(_) => "neighbour",
        Action::SetSysctl { .. } => "sysctl",
        Action::PutNft(_) | Action::RemoveNft => "nftables",
        Action::Attach { .. } | Action::Detach { .. } => "link",
        Action::PutConfig(_) => "config",
        Action::PutPod { .. } | Action::RemovePod { .. } => "pod",
        Action::PutNodes(_) | Action::RemoveNodes(_) => "node",
    }
}

/// How much of `action` undoes what somebody else did: what it is about was wanted just so when all was
/// well the last time (`before`), and still is.
pub fn drift(action: &Action, before: &State, wanted: &State) -> u64 {
    let is_drift = match action {
        Action::PutNodes(rows) => {
            return count(rows.iter().map(|(prefix, _)| prefix), before, wanted);
        }
        Action::RemoveNodes(prefixes) => return count(prefixes.iter().copied(), before, wanted),
        Action::PutDevice { name, .. } | Action::RemoveDevice { name } => {
            before.devices.get(name) == wanted.devices.get(name)
        }
        Action::SetAggregates { interface, .. } => {
            before.aggregates.get(interface) == wanted.aggregates.get(interface)
        }
        Action::AddAddress(net) | Action::RemoveAddress(net) => {
            before.addresses.contains(net) == wanted.addresses.contains(net)
        }
        Action::PutRoute { destination, .. } | Action::RemoveRoute { destination } => {
            before.routes.get(destination) == wanted.routes.get(destination)
        }
        // The kernel removes them itself, when their interface goes down.
        Action::PutNeighbour(_) | Action::RemoveNeighbour(_) => false,
        Action::SetSysctl { path, .. } => before.sysctls.get(path) == wanted.sysctls.get(path),
        Action::PutNft(_) | Action::RemoveNft => before.nft == wanted.nft,
        Action::Attach { interface, hook, .. } | Action::Detach { interface, hook } => {
            let key = (interface.clone(), *hook);
            before.links.get(&key) == wanted.links.get(&key)
        }
        Action::PutConfig(_) => before.config == wanted.config,
        Action::PutPod { address, .. } | Action::RemovePod { address, .. } => {
            let key = AddrKey::from(*address);
            before.pods.get(&key) == wanted.pods.get(&key)
        }
    };
    u64::from(is_drift)
}

/// How many of these entries were wanted just so before.
fn count(prefixes: impl Iterator<Item = IpNet>, before: &State, wanted: &State) -> u64 {
    prefixes.filter(|prefix| before.nodes.get(prefix) == wanted.nodes.get(prefix)).count() as u64
}

/// The object of an action, for the log.
pub fn describe(action: &Action) -> String {
    match action {
        Action::PutDevice { name, .. } | Action::RemoveDevice { name } => format!("device {name}"),
        Action::SetAggregates { interface, .. } => {
            format!("largest packets (gso_max_size and the like) of {interface}")
        }
        Action::AddAddress(net) | Action::RemoveAddress(net) => format!("address {net}"),
        Action::PutRoute { destination, .. } | Action::RemoveRoute { destination } => {
            format!("route {destination}")
        }
        Action::PutNeighbour(neighbour) | Action::RemoveNeighbour(neighbour) => {
            format!("neighbour {} on {}", neighbour.address, neighbour.device)
        }
        Action::SetSysctl { path, value } => format!("sysctl {path}={value}"),
        Action::PutNft(_) | Action::RemoveNft => "nftables table".to_owned(),
        Action::Attach { interface, hook, .. } | Action::Detach { interface, hook } => {
            let hook = match hook {
                LinkHook::Ingress => "ingress",
                LinkHook::Egress => "egress",
            };
            format!("program at {interface} {hook}")
        }
        Action::PutConfig(_) => "entry of pw_config".to_owned(),
        Action::PutPod { address, .. } | Action::RemovePod { address, .. } => {
            format!("entry {} of pw_pods", address.to_ip())
        }
        Action::PutNodes(rows) => entries(rows.len(), rows.iter().next().map(|(first, _)| first)),
        Action::RemoveNodes(prefixes) => entries(prefixes.len(), prefixes.first().copied()),
    }
}

fn entries(count: usize, first: Option<IpNet>) -> String {
    let first = first.map(|first| first.to_string()).unwrap_or_default();
    match count.saturating_sub(1) {
        0 => format!("entry {first} of pw_nodes"),
        more => format!("entry {first} of pw_nodes and {more} more"),
    }
}

#[cfg(test)]
mod tests;
