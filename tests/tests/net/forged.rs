//! Lies: about a source, and inside a tunnel.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use tests::cluster::{Cluster, Mode};
use tests::namespace::Namespace;
use tests::pod::Pod;
use tests::probe;

/// The agent's defaults.
const VXLAN_PORT: u16 = 8472;
const VXLAN_VNI: u32 = 0x5057;
const LISTEN_PORT: u16 = 9009;
const LIES: u64 = 5;

#[test]
fn a_pod_with_a_foreign_source_is_dropped_and_counted() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let node = cluster.node(1);
            let (liar, other) = (node.pod()?, cluster.node(2).pod()?);
            liar.namespace.ip(
                "address add 10.244.1.77/32 dev eth0\naddress add fd00:10:244:1::77/128 dev eth0 nodad",
            )?;
            for (family, source) in ["10.244.1.77", "fd00:10:244:1::77"].iter().enumerate() {
                let to = other.addresses[family];
                let before = node.counter("spoofed_source")?;
                let ping = probe::ping_with(&liar.namespace, to, &["-I", source]);
                ensure!(ping.is_err(), "{source} was believed");
                ensure!(node.counter("spoofed_source")? == before + 1, "not counted");
                let own = liar.addresses[family].to_string();
                probe::ping_with(&liar.namespace, to, &["-I", &own])?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_tunnel_packet_of_a_pod_is_not_delivered() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let (victim, liar) = (cluster.node(2).pod()?, cluster.node(1).pod()?);
        for node in cluster.nodes() {
            let before = cluster.node(1).counter("tunnel_port")?;
            let to = SocketAddr::new(node.addresses[0], VXLAN_PORT);
            nothing_of_it_arrives(&liar.namespace, to, "10.244.1.99", &victim, &liar)?;
            ensure!(cluster.node(1).counter("tunnel_port")? == before + LIES, "not counted");
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_packet_of_a_stranger_is_not_delivered() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(2);
        let (victim, friend) = (node.pod()?, cluster.node(1).pod()?);
        let stranger = cluster.stranger()?;
        let to = SocketAddr::new(node.addresses[0], VXLAN_PORT);
        // Inside, it claims to be a pod of a node, a node among the pods, and a pod of the receiver.
        for claimed in ["10.244.1.2", "10.244.1.1", "10.244.2.1", "192.168.1.11"] {
            let before = node.counter("tunnel_source")?;
            nothing_of_it_arrives(&stranger, to, claimed, &victim, &friend)?;
            ensure!(node.counter("tunnel_source")? == before + LIES, "{claimed} is not counted");
        }
        Ok(())
    });
}

#[test]
fn a_plain_packet_of_a_stranger_with_a_pods_source_is_not_delivered() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(2);
        let (victim, local) = (node.pod()?, node.pod()?);
        let stranger = cluster.stranger()?;
        let lie = local.addresses[0];
        stranger.ip(&format!(
            "address add {lie}/32 dev lo\nroute add 10.244.2.0/24 via {}",
            node.addresses[0]
        ))?;
        let before = node.counter("own_source")?;
        let ping = probe::ping_with(&stranger, victim.addresses[0], &["-I", &lie.to_string()]);
        ensure!(ping.is_err(), "{lie} was believed");
        ensure!(node.counter("own_source")? == before + 1, "not counted");
        Ok(())
    });
}

/// Sends lies, then one honest datagram of `friend`, which must be the first that `victim` gets.
fn nothing_of_it_arrives(
    liar: &Namespace,
    tunnel: SocketAddr,
    claimed: &str,
    victim: &Pod,
    friend: &Pod,
) -> Result<()> {
    let to = SocketAddr::new(victim.addresses[0], LISTEN_PORT);
    let listener = victim.namespace.enter(|| probe::udp_socket(Some(to), to.ip()))?;
    let packet = vxlan_packet(claimed.parse()?, to)?;
    liar.enter(|| -> Result<()> {
        let socket = probe::udp_socket(None, tunnel.ip())?;
        for _ in 0..LIES {
            socket.send_to(&packet, tunnel)?;
        }
        Ok(())
    })?;
    friend
        .namespace
        .enter(|| probe::udp_socket(None, to.ip())?.send_to(b"truth", to).context("send"))?;
    let mut got = [0; 100];
    let (length, from) = listener.recv_from(&mut got).context("the honest one")?;
    ensure!(&got[..length] == b"truth", "{from} delivered {:?}", &got[..length]);
    Ok(())
}

/// What stands behind the outer UDP header.
fn vxlan_packet(source: IpAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, to.ip()) else {
        anyhow::bail!("IPv4 only");
    };
    let inner = PacketBuilder::ethernet2([2, 0x50, 0x57, 0, 0, 9], [2, 0x50, 0x57, 0, 0, 1])
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(1000, to.port());
    let [_, vni @ ..] = VXLAN_VNI.to_be_bytes();
    let mut packet = vec![8, 0, 0, 0, vni[0], vni[1], vni[2], 0];
    inner.write(&mut packet, b"lie")?;
    Ok(packet)
}
