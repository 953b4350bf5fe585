//! VXLAN: who encapsulates.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::namespace::Namespace;
use tests::probe::{self, BULK_BYTES};
use tests::server::Server;
use tests::wait::wait_until;

/// An agent looks again at least this often.
const LOOK_TIME_MAX: Duration = Duration::from_secs(30);

#[test]
fn ipsec_policies_see_tunnel_packets() {
    Cluster::builder(Mode::Vxlan).nodes(2).test(|cluster| {
        let node = cluster.node(1);
        let (client, server) = (node.pod()?, cluster.node(2).pod()?);
        let _running = Server::start(&server.namespace, &server.addresses)?;
        let exchange = || probe::tcp(&client.namespace, server.addresses[0], BULK_BYTES);
        // The first packets wait for a neighbour, which is the stack's work.
        probe::ping(&client.namespace, server.addresses[0])?;
        let before = sent(&node.namespace)?;
        exchange()?;
        ensure!(sent(&node.namespace)? == before, "the VXLAN device sent what programs can send");

        let [own, peer] = ["192.168.1.11", "192.168.1.12"];
        let policy = format!("dir out src {own} dst {peer} proto udp dport 8472");
        node.namespace.ip(&format!("xfrm policy add {policy} action block"))?;
        wait_until("the policy to block the tunnel", LOOK_TIME_MAX, || {
            match probe::ping(&client.namespace, server.addresses[0]) {
                Ok(()) => bail!("a ping passed"),
                Err(_) => Ok(()),
            }
        })?;
        node.namespace.ip(&format!("xfrm policy update {policy} action allow"))?;
        let before = sent(&node.namespace)?;
        exchange()?;
        ensure!(sent(&node.namespace)? > before, "the host stack did not see the data");

        node.namespace.ip("xfrm policy flush")?;
        wait_until("the programs to send again", LOOK_TIME_MAX, || {
            let before = sent(&node.namespace)?;
            probe::ping(&client.namespace, server.addresses[0])?;
            ensure!(sent(&node.namespace)? == before, "the device sent a ping");
            Ok(())
        })
    });
}

/// Packets that the VXLAN device of a node has sent.
fn sent(node: &Namespace) -> Result<u64> {
    let links: Value = serde_json::from_str(&node.run("ip -j -s link show podwire-vxlan")?)?;
    links[0]["stats64"]["tx"]["packets"].as_u64().context("no count")
}

#[test]
fn aggregates_are_cut_for_an_uplink_without_offloads() {
    Cluster::builder(Mode::Vxlan).nodes(2).test(|cluster| {
        for node in cluster.nodes() {
            node.namespace.run("ethtool -K eth0 tx off tso off gso off")?;
        }
        let (client, server) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
        let _running = Server::start(&server.namespace, &server.addresses)?;
        for to in &server.addresses {
            probe::ping(&client.namespace, *to)?;
            let before = uplink_sent(&cluster.node(1).namespace)?;
            probe::tcp(&client.namespace, *to, BULK_BYTES)?;
            let after = uplink_sent(&cluster.node(1).namespace)?;
            ensure!(
                after.0 - before.0 <= (after.1 - before.1) * 1_514,
                "longer than the link's MTU"
            );
        }
        Ok(())
    });
}

/// Bytes and packets that the uplink of a node has sent.
fn uplink_sent(node: &Namespace) -> Result<(u64, u64)> {
    let links: Value = serde_json::from_str(&node.run("ip -j -s link show eth0")?)?;
    let tx = &links[0]["stats64"]["tx"];
    let number = |name: &str| tx[name].as_u64().context("no count");
    Ok((number("bytes")?, number("packets")?))
}
