//! The same ways with more and more entries in the maps, all of them made by the agent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use tests::cluster::{Cluster, Mode};
use tests::namespace::Namespace;
use tests::pod::Pod;
use tests::reference::{Pair, hosts, veth_pair};
use tests::report::progress;
use tests::wait::wait_until;

use super::load::{Floor, Peers, Servers};
use super::stage::{servers, world};
use super::way::{Contender, Family, Path, Way};
use crate::crowd::{Stranger, node_file, populate};

/// The agent has read a node file within this time, on a busy machine too.
const APPLY_TIME_MAX: Duration = Duration::from_secs(60);

/// What is in the maps.
struct Size {
    contender: Contender,
    /// Addresses of pods on each of the two nodes.
    local: usize,
    /// Other nodes, each with two networks.
    nodes: usize,
    /// Addresses of pods outside the networks of their nodes.
    remote: usize,
}

const fn size(contender: Contender, local: usize, nodes: usize, remote: usize) -> Size {
    Size { contender, local, nodes, remote }
}

const SIZES: [Size; 5] = [
    size(Contender::Ten, 10, 1, 10),
    size(Contender::Hundred, 100, 1, 100),
    size(Contender::Thousand, 1000, 1, 1000),
    size(Contender::TenThousand, 10_000, 1, 10_000),
    size(Contender::Nodes, 10, 5000, 0),
];

/// Two clusters of two nodes for each size: one whose packets between the nodes are as they are, one with VXLAN.
pub(super) struct Scale {
    // Dropped in this order: servers before their namespaces.
    _servers: Servers,
    parts: Parts,
}

/// What is put together first.
#[derive(Default)]
struct Parts {
    pods: Vec<Pod>,
    crowds: Vec<Namespace>,
    floors: Vec<Pair>,
    clusters: Vec<Cluster>,
    ways: Vec<Way>,
}

impl Scale {
    /// Makes all of them.
    ///
    /// # Errors
    /// When an agent cannot, or takes too long.
    pub(super) fn new() -> Result<Self> {
        let modes = [Mode::Direct, Mode::Vxlan];
        let bar = progress("clusters by entries", (modes.len() * SIZES.len()) as u64);
        let mut parts = Parts::default();
        for size in SIZES {
            for mode in modes {
                parts.add(mode, &size)?;
                bar.inc(1);
            }
        }
        let servers = servers(&parts.ways)?;
        bar.finish_and_clear();
        Ok(Self { _servers: servers, parts })
    }

    /// By how much is in the maps.
    pub(super) fn ways(&self) -> &[Way] {
        &self.parts.ways
    }
}

impl Parts {
    fn add(&mut self, mode: Mode, size: &Size) -> Result<()> {
        let cluster = Cluster::builder(mode).of_bench().build()?;
        let [near_crowd, far_crowd] = fill(&cluster, size)?;
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (client, near, far) = (one.pod()?, one.pod()?, two.pod()?);
        let (run, fabric, from) = (cluster.run(), &cluster.fabric, &client.namespace);
        if mode == Mode::Direct {
            let floor = veth_pair(run)?;
            self.add_pods(Path::SameNodeByEntries, size, from, &near, &near_crowd, floor)?;
            self.add_pods(
                Path::DirectByEntries,
                size,
                from,
                &far,
                &far_crowd,
                hosts(run, fabric)?,
            )?;
            for (path, server, addresses) in [
                (Path::OwnNodeByEntries, &one.namespace, &one.addresses[..]),
                (Path::WorldByEntries, &fabric.world, &world()),
            ] {
                self.ways.extend(Way::both(path, size.contender, from, server, addresses));
            }
        } else {
            self.add_pods(Path::VxlanByEntries, size, from, &far, &far_crowd, hosts(run, fabric)?)?;
        }
        let crowds = [near_crowd, far_crowd].into_iter().flatten();
        self.crowds.extend(crowds.map(|(pod, _)| pod));
        self.pods.extend([client, near, far]);
        self.clusters.push(cluster);
        Ok(())
    }

    /// To one pod, and with IPv6 to all of a crowd, too.
    fn add_pods(
        &mut self,
        path: Path,
        size: &Size,
        from: &Namespace,
        pod: &Pod,
        crowd: &Crowd,
        floor: Pair,
    ) -> Result<()> {
        let mut both = Way::both(path, size.contender, from, &pod.namespace, &pod.addresses);
        let least = Arc::new(Floor::new(&floor, size.local)?);
        let peers = Arc::new(Peers::new(crowd)?);
        for way in both.iter_mut().filter(|way| way.label.family == Family::Ipv6) {
            way.peers = Some((Arc::clone(&peers), Arc::clone(&least)));
        }
        self.ways.extend(both);
        self.floors.push(floor);
        Ok(())
    }
}

/// Pods of a node with all their addresses.
type Crowd = Vec<(Namespace, Vec<IpAddr>)>;

/// Has the agents fill the maps, and waits until they have; the crowds of both nodes.
fn fill(cluster: &Cluster, size: &Size) -> Result<[Crowd; 2]> {
    let strangers = Stranger::many(size.nodes, size.remote);
    cluster.write_node_file(&node_file(cluster, &strangers)?)?;
    let mut crowds = Vec::new();
    for node in cluster.nodes() {
        crowds.push(populate(node, size.local, cluster.run().name())?);
        let expected = 2 * size.nodes + size.remote;
        wait_until("all nodes in the map", APPLY_TIME_MAX, || {
            let entries = node.map("pw_nodes")?.len();
            ensure!(entries >= expected, "{entries} of {expected}");
            Ok(())
        })?;
        let entries = node.map("pw_pods")?.len();
        ensure!(entries >= size.local, "{entries} addresses of pods");
    }
    let count = crowds.len();
    crowds.try_into().map_err(|_| anyhow!("{count} nodes, two are wanted"))
}
