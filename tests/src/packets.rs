//! Packets, built by an independent crate.

use std::net::IpAddr;

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// A UDP packet.
pub fn udp(source: &str, destination: &str, ttl: u8, port: u16, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination, ttl)
        .udp(40000, port)
        .write(&mut packet, &vec![0x5a; payload])
        .expect("a packet");
    packet
}

/// A TCP packet.
pub fn tcp(source: &str, destination: &str, ttl: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination, ttl)
        .tcp(40000, 80, 1, 1000)
        .write(&mut packet, b"some data")
        .expect("a packet");
    packet
}

/// An ICMP "fragmentation needed" or ICMPv6 "packet too big" that quotes a packet.
pub fn too_big(source: &str, destination: &str, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip(source, destination, 64);
    let v4 = destination.parse::<IpAddr>().expect("an address").is_ipv4();
    let written = if v4 {
        step.icmpv4_raw(3, 4, [0, 0, 5, 0]).write(&mut packet, &quoted[14..])
    } else {
        step.icmpv6_raw(2, 0, [0, 0, 5, 0]).write(&mut packet, &quoted[14..])
    };
    written.expect("a packet");
    packet
}

/// An ARP request of a pod.
pub fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend([0x0a, 0, 0, 0, 0, 2]);
    packet.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    packet.extend([0x0a, 0, 0, 0, 0, 2]);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

/// A neighbour solicitation of a pod.
pub fn solicitation(source: &str, target: &str) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(target)) =
        (source.parse().expect("an address"), target.parse().expect("an address"))
    else {
        panic!("IPv6 only");
    };
    let mut body = target.octets().to_vec();
    body.extend([1, 1, 0x0a, 0, 0, 0, 0, 2]);
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([0x0a, 0, 0, 0, 0, 2], [0x33, 0x33, 0xff, 0, 0, 1])
        .ipv6(source.octets(), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1], 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut packet, &body)
        .expect("a packet");
    packet
}

/// The packet addressed to a MAC.
pub fn to_mac(mut packet: Vec<u8>, mac: [u8; 6]) -> Vec<u8> {
    packet[..6].copy_from_slice(&mac);
    packet
}

fn ip(source: &str, destination: &str, ttl: u8) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([0x0a, 0, 0, 0, 0, 2], [2, 0x50, 0x57, 0, 0, 2]);
    match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ethernet.ipv4(a.octets(), b.octets(), ttl),
        (IpAddr::V6(a), IpAddr::V6(b)) => ethernet.ipv6(a.octets(), b.octets(), ttl),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("two families"),
    }
}
