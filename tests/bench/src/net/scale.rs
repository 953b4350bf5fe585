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
use super::stage::servers;
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

/// A cluster of two nodes for each size.
pub(super) struct Scale {
    // Dropped in this order: servers before their namespaces.
    _servers: Servers,
    _pods: Vec<Pod>,
    _crowds: Vec<Namespace>,
    _floors: Vec<Pair>,
    _clusters: Vec<Cluster>,
    pub(super) ways: Vec<Way>,
}

impl Scale {
    /// Makes all of them.
    ///
    /// # Errors
    /// When something cannot be made.
    pub(super) fn new() -> Result<Self> {
        let bar = progress("clusters by entries", SIZES.len() as u64);
        let (mut ways, mut pods) = (Vec::new(), Vec::new());
        let (mut crowds, mut floors, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
        for size in SIZES {
            let cluster = Cluster::builder(Mode::Direct).of_bench().build()?;
            let [near_crowd, far_crowd] = fill(&cluster, &size)?;
            let (one, two) = (cluster.node(1), cluster.node(2));
            let (client, near, far) = (one.pod()?, one.pod()?, two.pod()?);
            let (run, fabric) = (cluster.run(), &cluster.fabric);
            for (path, pod, crowd, floor) in [
                (Path::SameNodeByEntries, &near, &near_crowd, veth_pair(run)?),
                (Path::DirectByEntries, &far, &far_crowd, hosts(run, fabric)?),
            ] {
                let (from, to) = (&client.namespace, &pod.namespace);
                let mut both = Way::both(path, size.contender, from, to, &pod.addresses);
                let least = Arc::new(Floor::new(&floor, size.local)?);
                let peers = Arc::new(Peers::new(crowd)?);
                let with_ipv6 = both.iter_mut().filter(|way| way.label.family == Family::Ipv6);
                with_ipv6
                    .for_each(|way| way.peers = Some((Arc::clone(&peers), Arc::clone(&least))));
                ways.extend(both);
                floors.push(floor);
            }
            crowds.extend([near_crowd, far_crowd].into_iter().flatten().map(|(pod, _)| pod));
            pods.extend([client, near, far]);
            clusters.push(cluster);
            bar.inc(1);
        }
        let servers = servers(&ways)?;
        bar.finish_and_clear();
        Ok(Self {
            _servers: servers,
            _pods: pods,
            _crowds: crowds,
            _floors: floors,
            _clusters: clusters,
            ways,
        })
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
