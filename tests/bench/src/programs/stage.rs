//! Nodes, pods, and the programs as the agent has loaded them.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Error, Result, anyhow};
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::SchedClassifier;
use aya::util::nr_cpus;
use dataplane_core::abi::{Config, KnownNode, NextHop, names};
use tests::cluster::{Cluster, Mode};
use tests::fabric::{Layout, WORLD};
use tests::node::Node;
use tests::pod::Pod;

use super::case::{self, Case, Device, Ground, ROOM, ROUTE};
use super::yardstick::{Arrival, Empty, encapsulation, route_look_up};

/// The second node is behind a router, so that packets to it are tunnelled; the third is on the link.
const LAYOUT: Layout = Layout::Routed { middle_mtu: 1500 };

const NODES_LEN: usize = names::KNOWN_NODES * size_of::<KnownNode>();
const HOPS_LEN: usize = names::HOPS * size_of::<NextHop>();

/// Everything that is measured.
pub(super) struct Stage {
    pub(super) cases: Vec<Case>,
    programs: Vec<(&'static str, SchedClassifier)>,
    empty: Empty,
    arrival: Arrival,
    /// To the other node on the link, by IPv4 and by IPv6.
    routes: [OwnedFd; 2],
    encapsulation: OwnedFd,
    _pods: [Pod; 2],
    pub(super) cluster: Cluster,
}

impl Stage {
    /// Makes it.
    ///
    /// # Errors
    /// When something cannot be made.
    pub(super) fn new() -> Result<Self> {
        let cluster = Cluster::builder(Mode::Auto).of_bench().nodes(3).layout(LAYOUT).build()?;
        let node = cluster.node(1);
        let pods = [node.pod()?, node.pod()?];
        let programs = names::PROGRAMS.map(|name| {
            let path = node.bpffs.join("programs").join(name);
            let program = SchedClassifier::from_pin(&path);
            Ok((name, program.with_context(|| format!("open {}", path.display()))?))
        });
        let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
        let config = config(node)?;
        let cases = case::all(&ground(&cluster, &pods, &config)?);
        let empty = Empty::new()?;
        let from_tunnel = program(&programs, names::PROGRAM_FROM_TUNNEL)?;
        let ends = [cluster.node(2).addresses[0], node.addresses[0]];
        let arrival = Arrival::new(config.tunnel_vni, ends, from_tunnel, &empty)?;
        let route = |family: usize| {
            let (from, to) = (node.addresses[family], cluster.node(3).addresses[family]);
            route_look_up(config.host_ifindex, from, to)
        };
        let routes = [route(0)?, route(1)?];
        let encapsulation = encapsulation()?;
        Ok(Self { cases, programs, empty, arrival, routes, encapsulation, _pods: pods, cluster })
    }

    /// What to run for a kind of packet, and what to subtract.
    ///
    /// # Errors
    /// When the agent has no such program.
    pub(super) fn programs_for(&self, case: &Case) -> Result<[BorrowedFd<'_>; 2]> {
        if case.program == names::PROGRAM_FROM_TUNNEL {
            return Ok(self.arrival.programs());
        }
        if case.program == ROUTE {
            let [ipv4, ipv6] = &self.routes;
            let route = if case.traffic == "IPv4" { ipv4 } else { ipv6 };
            return Ok([route.as_fd(), self.empty.program()]);
        }
        if case.program == ROOM {
            return Ok([self.encapsulation.as_fd(), self.empty.program()]);
        }
        Ok([program(&self.programs, case.program)?, self.empty.program()])
    }
}

fn program<'a>(programs: &'a [(&str, SchedClassifier)], name: &str) -> Result<BorrowedFd<'a>> {
    let program = programs.iter().find(|(own, _)| *own == name).context("no such program")?;
    Ok(program.1.fd()?.as_fd())
}

fn ground(cluster: &Cluster, pods: &[Pod; 2], config: &Config) -> Result<Ground> {
    let node = cluster.node(1);
    let both = |addresses: &[IpAddr]| -> Result<[IpAddr; 2]> {
        addresses.try_into().context("an address of each family")
    };
    let device = |name: &str| -> Result<Device> {
        let (ifindex, mac) = node.namespace.link(name)?;
        Ok(Device { ifindex, mac })
    };
    let [world4, world6] = WORLD;
    Ok(Ground {
        pod: both(&pods[0].addresses)?,
        neighbour: both(&pods[1].addresses)?,
        direct: first_pod(cluster.node(3)),
        tunnelled: first_pod(cluster.node(2)),
        world: [world4.parse()?, world6.parse()?],
        node: node.addresses,
        gateway: node.gateways,
        other_node: cluster.node(3).addresses,
        pod_device: device(&pods[0].host_ifname()?)?,
        uplink: device("eth0")?,
        tunnel: Device { ifindex: config.tunnel_ifindex, mac: config.tunnel_mac.octets },
        host: Device { ifindex: config.host_ifindex, mac: config.host_mac.octets },
    })
}

/// The address behind that of the node among the pods. Nobody needs to have it.
fn first_pod(node: &Node) -> [IpAddr; 2] {
    node.gateways.map(|gateway| match gateway {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + 1).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + 1).into()),
    })
}

fn map(node: &Node, name: &str) -> Result<MapData> {
    let path = node.bpffs.join("maps").join(name);
    MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))
}

fn config(node: &Node) -> Result<Config> {
    let map = Map::Array(map(node, names::MAP_CONFIG)?);
    Ok(Array::<_, Config>::try_from(map)?.get(&0, 0)?)
}

/// What processors remember.
pub(super) struct Memory {
    nodes: PerCpuArray<MapData, [u8; NODES_LEN]>,
    hops: PerCpuArray<MapData, [u8; HOPS_LEN]>,
    processors: usize,
}

impl Memory {
    /// That of the programs of a node.
    ///
    /// # Errors
    /// When its agent has not pinned it.
    pub(super) fn of(node: &Node) -> Result<Self> {
        let remembered = |name| Ok::<_, Error>(Map::PerCpuArray(map(node, name)?));
        Ok(Self {
            nodes: remembered(names::MAP_KNOWN_NODES)?.try_into()?,
            hops: remembered(names::MAP_HOPS)?.try_into()?,
            processors: nr_cpus().map_err(|(file, error)| anyhow!("{file}: {error}"))?,
        })
    }

    /// Empties it. It holds copies only: programs look up again what they do not find.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn forget(&mut self) -> Result<()> {
        forget(&mut self.nodes, self.processors)?;
        forget(&mut self.hops, self.processors)
    }
}

fn forget<const LEN: usize>(
    map: &mut PerCpuArray<MapData, [u8; LEN]>,
    processors: usize,
) -> Result<()> {
    Ok(map.set(0, PerCpuValues::try_from(vec![[0; LEN]; processors])?, 0)?)
}
