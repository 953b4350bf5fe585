//! The world outside, which knows no pod.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::fabric::WORLD;
use tests::probe;
use tests::server::Server;

#[test]
fn pods_are_seen_as_their_node_from_the_world() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(pods_reach_the_world_as_their_node);
    }
}

fn pods_reach_the_world_as_their_node(cluster: &Cluster) -> Result<()> {
    let world = WORLD.map(|address| address.parse::<IpAddr>().expect("an address"));
    let _server = Server::start(&cluster.fabric.world, &world)?;
    for node in cluster.nodes() {
        let pod = node.pod()?;
        for (family, address) in world.into_iter().enumerate() {
            probe::all_after_discovery(&pod.namespace, address)?;
            probe::tcp(&pod.namespace, address, probe::BULK_BYTES)?;
            for seen in [
                probe::seen_tcp(&pod.namespace, address)?,
                probe::seen_udp(&pod.namespace, address)?,
            ] {
                ensure!(seen == node.addresses[family], "the world sees {seen}");
            }
        }
    }
    Ok(())
}
