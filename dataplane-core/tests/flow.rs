//! Which packets share a key, and for how long a next hop is remembered.

use dataplane_core::abi::names::{FLOWS, HOPS, LOOK_UPS};
use dataplane_core::abi::{FlowKey, Mac, NextHop};
use dataplane_core::flow::flow_hash;
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Carried, Headers, carried, parse};
use etherparse::PacketBuilder;
use std::collections::BTreeSet;

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

fn key(packet: &[u8]) -> Option<FlowKey> {
    FlowKey::new(&headers(packet), 7, 1)
}

#[test]
fn all_that_a_delivery_depends_on_is_in_the_key() {
    let packet = tcp([10, 0, 0, 1], [10, 0, 0, 2]);
    let plain = key(&packet);
    assert!(plain.is_some());
    let mut longer = packet.clone();
    longer.extend([0; 9]);
    longer[22] = 3;
    assert_eq!(key(&longer), plain, "length and TTL do not matter");
    for (what, other) in [
        ("source", key(&tcp([10, 0, 0, 3], [10, 0, 0, 2]))),
        ("destination", key(&tcp([10, 0, 0, 1], [10, 0, 0, 3]))),
        ("interface", FlowKey::new(&headers(&packet), 8, 1)),
        ("version", FlowKey::new(&headers(&packet), 7, 2)),
        ("family", key(&tcp6(2, 6))),
    ] {
        assert!(other.is_some() && other != plain, "{what}");
    }
    assert_ne!(key(&tcp6(2, 6)), key(&tcp6(3, 6)));
}

#[test]
fn packets_that_need_a_closer_look_have_none() {
    let mut options = tcp([10, 0, 0, 1], [10, 0, 0, 2]);
    options[14] = 0x46;
    assert_eq!(key(&options), None, "IPv4 options");
    assert!(key(&tcp6(2, 17)).is_some(), "UDP");
    for next_header in [0, 43, 44, 58, 60] {
        assert_eq!(key(&tcp6(2, next_header)), None, "{next_header}");
    }
}

#[test]
fn pods_of_a_node_have_places_of_their_own() {
    let slots: BTreeSet<usize> = (2..=60)
        .map(|pod| key(&tcp([10, 244, 1, 1], [10, 244, 1, pod])).expect("a key").slot())
        .collect();
    assert!(slots.iter().all(|slot| *slot < FLOWS));
    assert!(slots.len() > 45, "59 receivers share {} places", slots.len());
}

/// Pod `pod` of node `node`, in the networks that clusters give their nodes.
const PODS: [fn(u8, u8) -> Ip; 4] = [
    |node, pod| Ip::from_ipv4([10, 244, node, pod]),
    |node, pod| Ip::from_bytes([0xfd, 0, 0, 0x10, 2, 0x44, 0, node, 0, 0, 0, 0, 0, 0, 0, pod]),
    |node, pod| Ip::from_bytes([0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, node, 0, 0, 0, pod]),
    |node, pod| Ip::from_bytes([0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, node, 0, pod]),
];

fn between(source: Ip, destination: Ip) -> FlowKey {
    let headers = Headers { source, destination, ..headers(&tcp([10, 0, 0, 1], [10, 0, 0, 2])) };
    FlowKey::of_look_ups(&headers, 7, 1)
}

#[test]
fn the_two_ways_of_a_conversation_have_places_of_their_own() {
    for (kind, pod) in PODS.iter().enumerate() {
        let ends = (0..16).flat_map(|node| (2..18).map(move |number| (node, number)));
        let (mut all, mut shared) = (0, 0);
        for (node, number) in ends {
            for other in node + 1..16 {
                let (here, there) = (pod(node, number), pod(other, number));
                let (out, back) = (between(here, there), between(there, here));
                all += 1;
                shared += usize::from(out.slot_of_look_ups() == back.slot_of_look_ups());
            }
        }
        assert!(shared < 3 * all / LOOK_UPS, "networks {kind}: {shared} of {all} share a place");
    }
}

#[test]
fn pods_of_other_nodes_have_places_of_their_own() {
    for (kind, pod) in PODS.iter().enumerate() {
        let places = (2..=60).map(|node| between(pod(1, 2), pod(node, 2)).slot_of_look_ups());
        let places: BTreeSet<usize> = places.collect();
        assert!(places.iter().all(|place| *place < LOOK_UPS));
        assert!(places.len() > 38, "networks {kind}: 59 receivers share {} places", places.len());
    }
}

/// Asked for at tick 1000, of an interface with an MTU of 1500.
fn hop(node: Ip) -> NextHop {
    NextHop {
        node,
        asked: 1000,
        ifindex: 3,
        mtu: 1500,
        destination_mac: Mac::new([2; 6]),
        source_mac: Mac::new([4; 6]),
        reserved: 0,
    }
}

#[test]
fn a_next_hop_is_sent_to_in_the_tick_it_was_asked_for_and_the_next() {
    let node = Ip::from_ipv4([192, 0, 2, 1]);
    let known = [999, 1000, 1001, 1002, 1_000_000].map(|now| hop(node).leads_to(&node, now));
    assert_eq!(known, [false, true, true, false, false]);
    assert!(!hop(node).leads_to(&Ip::from_ipv4([192, 0, 2, 2]), 1000), "another node");
}

#[test]
fn a_packet_that_the_interface_does_not_take_is_none_of_a_next_hop() {
    let hop = hop(Ip::from_ipv4([192, 0, 2, 1]));
    assert!(hop.takes(1514, 0));
    assert!(!hop.takes(1515, 0));
    assert!(hop.takes(65_000, 1448), "the interface gets segments");
}

#[test]
fn next_hops_of_neighbours_have_places_of_their_own() {
    let v4 = (1..=60).map(|node| Ip::from_ipv4([192, 0, 2, node]));
    let v6 = (1..=60)
        .map(|node| Ip::from_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, node]));
    let networks = (1..=60)
        .map(|node| Ip::from_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, node, 0, 0, 0, 0, 0, 0, 0, 1]));
    for nodes in [v4.collect::<Vec<_>>(), v6.collect(), networks.collect()] {
        let slots: BTreeSet<usize> = nodes.iter().map(NextHop::slot).collect();
        assert!(slots.iter().all(|slot| *slot < HOPS));
        assert!(slots.len() > 45, "60 nodes share {} places", slots.len());
    }
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
