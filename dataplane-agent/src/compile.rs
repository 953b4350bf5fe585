//! Turns the model into the state that the kernel should have. Pure.

mod big_tcp;
mod nodes;
mod outside;
mod peers;
mod sysctls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane_core::abi::config::TUNNEL_MAC;
use dataplane_core::abi::names::{
    PROGRAM_FROM_HOST, PROGRAM_FROM_NET, PROGRAM_FROM_POD, PROGRAM_FROM_TUNNEL, PROGRAM_TO_POD,
};
use dataplane_core::abi::{ABI_VERSION, Addr, Config, Mac, PodEntry};
use ipnet::IpNet;

pub use self::big_tcp::Chosen;
use self::peers::Paths;
pub use self::peers::{Peer, Way};
pub use self::sysctls::watched_sysctls;
use crate::advice::Advice;
use crate::kernel::{
    AddrKey, Device, HOST_DEVICE, Link, LinkHook, Medium, NftRules, Observed, Questions, Route,
    State, TUNNEL_DEVICE,
};
use crate::model::{Encapsulation, Model, Node, gateway, is_pod_interface};

/// `podwire0` carries whatever the host stack makes of a route's MTU.
const HOST_DEVICE_MTU: u32 = 65_535;

/// What [`compile`] finds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// What the kernel should have.
    pub state: State,
    /// The devices that own the node's addresses, or those that the operator named.
    pub uplinks: Vec<String>,
    /// Largest IP packet that reaches every pod.
    pub pod_mtu: u32,
    /// Largest IP packet between pods of this node, and MTU of their interfaces; not below `pod_mtu`.
    pub near_mtu: u32,
    /// How long packets of pods may be.
    pub big_tcp: Chosen,
    /// Why pods cannot be made, though the data plane is as it should be.
    pub obstacle: Option<String>,
    /// What an operator should know.
    pub problems: Vec<String>,
    source: nodes::Source,
}

/// The state that this model wants on a machine with these interfaces.
///
/// `observed` says which interfaces there are, and which links belong to pods that are being made or
/// unmade by the plugin: those stay as they are.
pub fn compile(model: &Model, observed: &Observed) -> Compiled {
    compile_again(model, observed, &Compiled::default())
}

/// Likewise; takes from the last result what is large and has not changed.
pub fn compile_again(model: &Model, observed: &Observed, last: &Compiled) -> Compiled {
    let mut compiled = Compiled::default();
    let Some(own) = model.own() else {
        compiled.state = observed.state.clone();
        compiled.problems.push(format!("no node is called \"{}\"", model.own_name));
        return compiled;
    };
    let uplinks = uplinks(model, own, observed);
    compiled.uplinks = uplinks.iter().map(|link| link.name.clone()).collect();
    let paths = Paths::new(model, own, &uplinks, observed);
    let peers: Vec<Peer<'_>> = model.peers().map(|peer| paths.peer(peer)).collect();
    let cluster = model.cluster_cidrs();
    let narrowest = paths.narrowest(model);
    compiled.pod_mtu = narrowest.pod_mtu;
    compiled.near_mtu = paths.uplink_mtu();
    compiled.problems = uplink_problems(model, own, &uplinks, observed);
    compiled.problems.extend(paths.problems(&peers));
    compiled.obstacle = narrowest.obstacle(own);
    compiled.problems.extend(compiled.obstacle.clone());
    compiled.problems.extend(observed.doubts.iter().cloned());
    compiled.problems.extend(outside::problem(model, own));
    compiled.big_tcp = big_tcp::choose(model, &uplinks, observed, compiled.pod_mtu);
    compiled.problems.extend(big_tcp::problem(&uplinks, observed));

    let state = &mut compiled.state;
    state.devices = devices(model, &paths);
    state.aggregates = compiled.big_tcp.uplinks.clone();
    state.addresses = own.pod_cidrs.iter().map(|cidr| IpNet::from(gateway(cidr))).collect();
    state.routes = routes(model, own, observed, &cluster, route_mtu(compiled.pod_mtu, observed));
    state.neighbours = paths.neighbours(&peers, &observed.fixed_neighbours);
    state.sysctls = sysctls::wanted(own, &uplinks, observed);
    state.nft = Some(nft(model, own, observed, &cluster));
    let source = nodes::Source::new(model, own, observed, cluster, &peers);
    let is_same = source == last.source;
    state.nodes = if is_same { last.state.nodes.clone() } else { source.table(own) };
    compiled.source = source;
    state.links = links(model, &uplinks, observed);
    state.pods = pods(model, own, observed);
    state.config = config(model, own, observed);
    compiled
}

impl Compiled {
    /// How the other nodes are reached.
    pub fn peers(&self) -> impl Iterator<Item = Peer<'_>> {
        self.source.peers()
    }
}

/// What [`compile`] needs to know of the kernel, given these interfaces.
pub fn questions(model: &Model, observed: &Observed) -> Questions {
    let sysctls = watched_sysctls(model, observed);
    let Some(own) = model.own() else { return Questions { sysctls, ..Questions::default() } };
    let own_like = [true, false].map(|ipv4| own.addresses.iter().find(|ip| ip.is_ipv4() == ipv4));
    let mut peers = BTreeMap::new();
    for from in own_like.into_iter().flatten() {
        peers.extend(model.peers().filter_map(|peer| Some((peer.address_like(from)?, *from))));
        if big_tcp::asks_for_world(model) {
            let world = big_tcp::WORLD.iter().filter(|world| world.is_ipv4() == from.is_ipv4());
            peers.extend(world.map(|world| (*world, *from)));
        }
    }
    Questions { sysctls, peers, nodes: None }
}

/// The operator's uplinks, else the devices that have the node's addresses, else those that had them
/// at the last look: an address that is away for a moment must not detach programs.
fn uplinks<'a>(model: &Model, own: &Node, observed: &'a Observed) -> Vec<&'a Link> {
    let named = |names: &[String]| {
        names.iter().filter_map(|name| observed.interfaces.get(name)).collect::<Vec<_>>()
    };
    if !model.network.uplinks.is_empty() {
        return named(&model.network.uplinks);
    }
    let owners: Vec<&Link> = observed
        .interfaces
        .values()
        .filter(|link| link.medium != Medium::Nothing)
        .filter(|link| link.addresses.iter().any(|has| own.addresses.contains(&has.addr())))
        .collect();
    if owners.is_empty() { named(&model.last_uplinks) } else { owners }
}

fn uplink_problems(
    model: &Model,
    own: &Node,
    uplinks: &[&Link],
    observed: &Observed,
) -> Vec<String> {
    let mut problems = Vec::new();
    for name in &model.network.uplinks {
        if !observed.interfaces.contains_key(name) {
            problems.push(format!("there is no uplink {name}: correct --uplink, or create it"));
        }
    }
    let here: Vec<IpAddr> = observed
        .interfaces
        .values()
        .flat_map(|link| link.addresses.iter().map(IpNet::addr))
        .collect();
    for address in own.addresses.iter().filter(|address| !here.contains(address)) {
        problems.push(format!(
            "no interface has {address}, which is registered for {}: \
             other nodes cannot reach its pods",
            own.name
        ));
    }
    if uplinks.is_empty() && model.network.uplinks.is_empty() {
        problems.push(
            "no device but loopback or dummy ones has the node's address: name those that lead to \
             other nodes with --uplink"
                .to_owned(),
        );
    }
    for link in uplinks {
        if !link.up {
            problems
                .push(format!("the uplink {} is down: `ip link set {} up`", link.name, link.name));
        }
        if rp_filter(observed, &link.name) == Some(1) {
            problems.push(strict_rp_filter(&link.name).to_string());
        }
    }
    problems
}

/// What to say of an uplink with a strict filter.
pub fn strict_rp_filter(uplink: &str) -> Advice {
    let found = format!(
        "rp_filter is strict on the uplink {uplink}: pods are not affected, but the kernel drops what \
         reaches the node by another way than its answer would take"
    );
    Advice::new(found, format!("loose is `sysctl net.ipv4.conf.{uplink}.rp_filter=2`"))
}

/// The kernel uses the larger of the two values (Documentation/networking/ip-sysctl.rst).
fn rp_filter(observed: &Observed, uplink: &str) -> Option<u32> {
    let value = |of: &str| {
        let path = format!("net/ipv4/conf/{of}/rp_filter");
        observed.state.sysctls.get(&path).and_then(|text| text.trim().parse::<u32>().ok())
    };
    value("all").max(value(uplink))
}

fn devices(model: &Model, paths: &Paths<'_>) -> BTreeMap<String, Device> {
    let mut devices =
        BTreeMap::from([(HOST_DEVICE.to_owned(), Device::Host { mtu: HOST_DEVICE_MTU })]);
    if has_tunnel(model) {
        let tunnel = Device::Tunnel { port: model.network.vxlan_port, mtu: paths.tunnel_mtu() };
        devices.insert(TUNNEL_DEVICE.to_owned(), tunnel);
    }
    devices
}

fn has_tunnel(model: &Model) -> bool {
    match model.network.encapsulation {
        Encapsulation::Direct => false,
        Encapsulation::Vxlan | Encapsulation::Auto => true,
    }
}

/// A pod keeps the MTU of its ADD, and its veth loses larger packets of the host without an error.
fn route_mtu(pod_mtu: u32, observed: &Observed) -> u32 {
    let pods = observed.interfaces.values().filter(|link| is_pod_interface(&link.name));
    pods.map(|link| link.mtu).chain([pod_mtu]).min().unwrap_or(pod_mtu)
}

fn routes(
    model: &Model,
    own: &Node,
    observed: &Observed,
    cluster: &[IpNet],
    mtu: u32,
) -> BTreeMap<IpNet, Route> {
    let source_like = |cidr: &IpNet| {
        own.pod_cidrs.iter().map(gateway).find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4())
    };
    cluster
        .iter()
        .copied()
        .chain(outside::of(model, observed, cluster))
        .filter_map(|cidr| source_like(&cidr).map(|source| (cidr, Route { source, mtu })))
        .collect()
}

fn nft(model: &Model, own: &Node, observed: &Observed, cluster: &[IpNet]) -> NftRules {
    let outside = outside::of(model, observed, &own.pod_cidrs);
    NftRules {
        pods: own.pod_cidrs.iter().copied().chain(outside).collect(),
        cluster: cluster.iter().copied().collect(),
        // They guard the tunnel.
        nodes: if has_tunnel(model) {
            model.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect()
        } else {
            BTreeSet::new()
        },
        own: own.addresses.iter().copied().collect(),
        tunnel_port: has_tunnel(model).then_some(model.network.vxlan_port),
    }
}

fn links(
    model: &Model,
    uplinks: &[&Link],
    observed: &Observed,
) -> BTreeMap<(String, LinkHook), String> {
    let mut links = BTreeMap::new();
    let mut want = |interface: &str, hook, program: &str| {
        if observed.interfaces.contains_key(interface) {
            links.insert((interface.to_owned(), hook), program.to_owned());
        }
    };
    want(HOST_DEVICE, LinkHook::Egress, PROGRAM_FROM_HOST);
    if has_tunnel(model) {
        want(TUNNEL_DEVICE, LinkHook::Ingress, PROGRAM_FROM_TUNNEL);
    }
    // The program reads an Ethernet header.
    for uplink in uplinks.iter().filter(|link| link.medium != Medium::Bare) {
        want(&uplink.name, LinkHook::Ingress, PROGRAM_FROM_NET);
    }
    for (name, attached) in &model.attachments {
        if observed.interfaces.get(name).is_some_and(|link| is_made(link, attached.ifindex)) {
            want(name, LinkHook::Ingress, PROGRAM_FROM_POD);
            want(name, LinkHook::Egress, PROGRAM_TO_POD);
        }
    }
    // The plugin attaches before or while it asks, and detaches after: what is not ours to judge stays.
    for ((name, hook), program) in &observed.state.links {
        if is_pod_interface(name) && !model.released.contains(name) {
            let key = (name.clone(), *hook);
            links.entry(key).or_insert_with(|| program.clone());
        }
    }
    links
}

/// Until a packet can pass for the first time, the plugin is at it: it attaches by itself.
fn is_made(link: &Link, ifindex: u32) -> bool {
    link.ifindex == ifindex && !link.unused
}

fn exists(observed: &Observed, name: &str, ifindex: u32) -> bool {
    observed.interfaces.get(name).is_some_and(|link| link.ifindex == ifindex)
}

fn pods(model: &Model, own: &Node, observed: &Observed) -> BTreeMap<AddrKey, PodEntry> {
    let mut pods = BTreeMap::new();
    for (name, entries) in &model.orphans {
        for (key, entry) in entries {
            if exists(observed, name, entry.ifindex) {
                pods.insert(*key, *entry);
            }
        }
    }
    for (name, attached) in &model.attachments {
        if exists(observed, name, attached.ifindex) {
            for address in &attached.addresses {
                pods.insert(Addr::from(*address).into(), attached.entry());
            }
        }
    }
    if let Some(host) = observed.interfaces.get(HOST_DEVICE) {
        let entry = PodEntry {
            ifindex: host.ifindex,
            kind: PodEntry::HOST,
            mac: host.mac,
            gateway_mac: host.mac,
            reserved: 0,
            generation: 0,
        };
        for cidr in &own.pod_cidrs {
            pods.insert(Addr::from(gateway(cidr)).into(), entry);
        }
    }
    pods
}

/// None until the devices are there: programs without configuration drop.
fn config(model: &Model, own: &Node, observed: &Observed) -> Option<Config> {
    let host = observed.interfaces.get(HOST_DEVICE)?;
    let tunnel = match has_tunnel(model) {
        true => Some(observed.interfaces.get(TUNNEL_DEVICE)?),
        false => None,
    };
    let mut flags = match model.network.encapsulation {
        Encapsulation::Direct | Encapsulation::Auto => Config::ACCEPT_DIRECT,
        Encapsulation::Vxlan => 0,
    };
    if observed.has_ipsec {
        flags |= Config::OUTER_BY_STACK;
    }
    let address = |ipv4: bool| {
        let first = own.addresses.iter().find(|address| address.is_ipv4() == ipv4);
        first.map_or(Addr::UNSPECIFIED, |address| Addr::from(*address))
    };
    Some(Config {
        abi_version: ABI_VERSION,
        flags,
        host_ifindex: host.ifindex,
        tunnel_ifindex: tunnel.map_or(0, |link| link.ifindex),
        tunnel_vni: model.network.vxlan_vni,
        tunnel_port: u32::from(model.network.vxlan_port),
        host_mac: host.mac,
        tunnel_mac: if tunnel.is_some() { TUNNEL_MAC } else { Mac::default() },
        maps_version: 0,
        node_ipv4: address(true),
        node_ipv6: address(false),
    })
}

#[cfg(test)]
mod tests;
