//! Lies: about a source, and inside a tunnel.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use dataplane_core::abi::config::GATEWAY_MAC;
use etherparse::PacketBuilder;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
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
fn a_tunnel_packet_to_another_address_of_a_node_is_not_delivered() {
    // Masqueraded on its way, it has the address of the liar's node: that of the claimed pod.
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(2);
        node.namespace.ip("address add 192.168.1.100/24 dev eth0")?;
        let (liar, victim) = (cluster.node(1).pod()?, node.pod()?);
        let before = node.counter("tunnel_source")?;
        let to = SocketAddr::new([192, 168, 1, 100].into(), VXLAN_PORT);
        nothing_of_it_arrives(&liar.namespace, to, "10.244.1.99", &victim, &liar)?;
        ensure!(node.counter("tunnel_source")? == before + LIES, "not counted");
        Ok(())
    });
}

#[test]
fn a_tunnel_device_without_its_program_lets_nobody_in() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(2);
        let (victim, friend) = (node.pod()?, node.pod()?);
        let stranger = cluster.stranger()?;
        node.kill_agent();
        fs::remove_file(node.bpffs.join("links/podwire-vxlan-ingress"))?;
        let to = SocketAddr::new(node.addresses[0], VXLAN_PORT);
        nothing_of_it_arrives(&stranger, to, "10.244.1.99", &victim, &friend)
    });
}

#[test]
fn a_stranger_cannot_pass_for_a_pod_by_its_node() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let (node, victim) = (cluster.node(1), cluster.node(2).pod()?);
            let friend = node.pod()?;
            let stranger = cluster.stranger()?;
            for (family, lie) in ["10.244.1.99", "fd00:10:244:1::99"].into_iter().enumerate() {
                let (lie, by): (IpAddr, _) = (lie.parse()?, node.addresses[family]);
                let to = SocketAddr::new(victim.addresses[family], LISTEN_PORT);
                stranger
                    .ip(&format!("address add {lie} dev lo\nroute add {} via {by}", to.ip()))?;
                let source = Some(SocketAddr::new(lie, 0));
                no_lie_arrives(&stranger, source, (b"lie", to), (&victim, to), &friend)?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_pod_does_not_choose_a_vlan() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let (liar, other) = (node.pod()?, node.pod()?);
        probe::ping(&liar.namespace, other.addresses[0])?;
        for tag in [5_u16, 0] {
            let before = node.counter("unknown_protocol")?;
            send_tagged(&liar, other.addresses[0], tag)?;
            ensure!(node.counter("unknown_protocol")? == before + 1, "tag {tag} is not counted");
        }
        Ok(())
    });
}

/// Sends one UDP datagram with a VLAN tag from the pod's interface.
fn send_tagged(liar: &Pod, to: IpAddr, tag: u16) -> Result<()> {
    let (IpAddr::V4(source), IpAddr::V4(to)) = (liar.addresses[0], to) else {
        anyhow::bail!("IPv4 only");
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], GATEWAY_MAC.octets)
        .single_vlan(tag.try_into()?)
        .ipv4(source.octets(), to.octets(), 64)
        .udp(1000, LISTEN_PORT)
        .write(&mut frame, b"lie")?;
    liar.namespace.enter(|| {
        let interface = getifaddrs()?
            .filter(|interface| interface.interface_name == "eth0")
            .find_map(|interface| interface.address?.as_link_addr().copied());
        let interface = interface.context("no eth0")?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        sendto(socket.as_raw_fd(), &frame, &interface, MsgFlags::empty())?;
        Ok(())
    })
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

/// Sends lies through a tunnel.
fn nothing_of_it_arrives(
    liar: &Namespace,
    tunnel: SocketAddr,
    claimed: &str,
    victim: &Pod,
    friend: &Pod,
) -> Result<()> {
    let to = SocketAddr::new(victim.addresses[0], LISTEN_PORT);
    let packet = vxlan_packet(claimed.parse()?, to)?;
    no_lie_arrives(liar, None, (&packet, tunnel), (victim, to), friend)
}

/// Sends lies, then one honest datagram of `friend`, which must be the first that `victim` gets.
fn no_lie_arrives(
    liar: &Namespace,
    source: Option<SocketAddr>,
    (packet, first): (&[u8], SocketAddr),
    (victim, to): (&Pod, SocketAddr),
    friend: &Pod,
) -> Result<()> {
    let listener = victim.namespace.enter(|| probe::udp_socket(Some(to), to.ip()))?;
    liar.enter(|| -> Result<()> {
        let socket = probe::udp_socket(source, first.ip())?;
        for _ in 0..LIES {
            socket.send_to(packet, first)?;
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
