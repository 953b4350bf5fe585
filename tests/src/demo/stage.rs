//! What the demo looks at: a cluster with pods, and servers everywhere.

use std::net::IpAddr;

use anyhow::Result;

use crate::cluster::{Cluster, Mode};
use crate::fabric::WORLD;
use crate::pod::Pod;
use crate::report::progress;
use crate::server::Server;

const NODES: u8 = 3;
const PODS_PER_NODE: usize = 2;

/// The cluster of the picture.
pub(super) struct Stage {
    _servers: Vec<Server>,
    pub(super) mode: Mode,
    /// Two on each node, in the order of the nodes.
    pub(super) pods: Vec<Pod>,
    pub(super) world: [IpAddr; 2],
    pub(super) cluster: Cluster,
}

impl Stage {
    pub(super) fn new(mode: Mode, keep: bool) -> Result<Self> {
        let steps = u64::from(NODES) * PODS_PER_NODE as u64 + 2;
        let bar = progress("nodes, agents and pods", steps);
        let cluster = Cluster::builder(mode).of_demo().nodes(NODES).keep(keep).build()?;
        bar.inc(1);
        let mut pods = Vec::new();
        for node in cluster.nodes() {
            for _ in 0..PODS_PER_NODE {
                pods.push(node.pod()?);
                bar.inc(1);
            }
        }
        let world = WORLD.map(|address| address.parse().expect("an address"));
        let mut servers = vec![Server::start(&cluster.fabric.world, &world)?];
        for pod in &pods {
            servers.push(Server::start(&pod.namespace, &pod.addresses)?);
        }
        for node in cluster.nodes() {
            let addresses = [node.addresses, node.gateways].concat();
            servers.push(Server::start(&node.namespace, &addresses)?);
        }
        bar.finish_and_clear();
        Ok(Self { _servers: servers, mode, pods, world, cluster })
    }

    /// A pod for people: `pod2b` is the second on node 2.
    pub(super) fn name(number: usize) -> String {
        let letter = if number.is_multiple_of(PODS_PER_NODE) { 'a' } else { 'b' };
        format!("pod{}{letter}", number / PODS_PER_NODE + 1)
    }

    pub(super) fn node_of(number: usize) -> usize {
        number / PODS_PER_NODE
    }
}
