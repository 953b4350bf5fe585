//! Which packets have the same number.

use std::collections::BTreeSet;

use dataplane_core::flow::flow_hash;
use dataplane_core::packet::{Carried, Headers, carried, parse};
use etherparse::PacketBuilder;

fn tcp(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(source, destination, 64)
        .tcp(1, 2, 3, 4)
        .write(&mut packet, b"data")
        .expect("a packet");
    packet
}

fn tcp6(last: u8, next_header: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    let end = |byte| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte];
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(end(1), end(last), 64)
        .tcp(1, 2, 3, 4)
        .write(&mut packet, b"data")
        .expect("a packet");
    packet[20] = next_header;
    packet
}

fn headers(packet: &[u8]) -> Headers {
    let Carried::Ip(family) = carried(packet) else { panic!("not IP") };
    parse(packet, family).expect("a good packet")
}

#[test]
fn a_flow_has_one_hash_and_others_have_others() {
    let udp = |port: u16, data: &[u8]| {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 244, 1, 2], [10, 244, 5, 9], 64)
            .udp(port, 53)
            .write(&mut packet, data)
            .expect("a packet");
        packet
    };
    let hash = |packet: &[u8]| flow_hash(packet, &headers(packet));
    assert_eq!(hash(&udp(1, b"a")), hash(&udp(1, b"longer")));
    // The source port of the outer header has 14 bits of it.
    let ends = |hashes: &BTreeSet<u32>| {
        hashes.iter().map(|hash| (hash ^ hash >> 16) & 0x3fff).collect::<BTreeSet<u32>>().len()
    };
    let by_port: BTreeSet<u32> = (0..1000).map(|port| hash(&udp(port, b"a"))).collect();
    assert!(ends(&by_port) > 900, "{} of 1000 ports", ends(&by_port));
    let by_address: BTreeSet<u32> = (0..250).map(|last| hash(&tcp6(last, 6))).collect();
    assert!(ends(&by_address) > 230, "{} of 250 addresses", ends(&by_address));
    assert_ne!(hash(&tcp([10, 0, 0, 1], [10, 0, 0, 2])), hash(&tcp([10, 0, 0, 2], [10, 0, 0, 1])));

    let fragment = |port, field: [u8; 2]| {
        let mut packet = udp(port, b"data of a fragment");
        packet[20..22].copy_from_slice(&field);
        packet
    };
    let (first, later) = (fragment(7, [0x20, 0]), fragment(9, [0, 3]));
    assert_eq!(hash(&first), hash(&later), "fragments of one packet stay together");
    assert_eq!(hash(&fragment(7, [0x40, 0])), hash(&udp(7, b"a")), "DF alone makes no fragment");
    let of = |protocol, port| {
        let mut packet = udp(port, b"a");
        packet[23] = protocol;
        hash(&packet)
    };
    const SCTP: u8 = 132;
    assert_ne!(of(SCTP, 1), of(SCTP, 2));
    const GRE: u8 = 47;
    assert_eq!(of(GRE, 1), of(GRE, 2), "what lies there is no port");
}
