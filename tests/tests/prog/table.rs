//! Row by row: packet in, verdict, packet out, and the one counter that changes.

use dataplane_core::abi::config::GATEWAY_MAC;
use dataplane_core::abi::{Config, Mac, NodeEntry, names};
use etherparse::{NetSlice, SlicedPacket};
use tests::packets::{arp_request, solicitation, tcp, to_mac, too_big, udp};

use super::fixture::{Fixture, NEIGHBOUR_MAC, Outcome, pod_mac};

const NEXT: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

/// What becomes of the bytes.
#[derive(Clone, Copy)]
enum Bytes {
    /// Nothing changes.
    Same,
    /// Other MACs, and one hop less if so.
    Sent { to: Mac, from: Mac, hop: bool },
    /// Another destination MAC.
    ToHost,
}

fn check(fixture: &Fixture, name: &str, packet: &[u8], outcome: &Outcome, row: (i32, &str, Bytes)) {
    let (action, counter, bytes) = row;
    assert_eq!(outcome.action, action, "{name}: verdict; counted {:?}", outcome.counted);
    assert_eq!(outcome.counted, [(counter, 1)].into(), "{name}: counters");
    let mut expected = packet.to_vec();
    match bytes {
        Bytes::Same => {}
        Bytes::ToHost => expected[..6].copy_from_slice(&fixture.host.mac.octets),
        Bytes::Sent { to, from, hop } => {
            expected[..6].copy_from_slice(&to.octets);
            expected[6..12].copy_from_slice(&from.octets);
            if hop {
                spend(&mut expected);
            }
        }
    }
    assert_eq!(outcome.packet, expected, "{name}: packet");
    check_header(name, &outcome.packet);
}

/// One hop less, with a checksum computed anew.
fn spend(packet: &mut [u8]) {
    if packet[12..14] == [0x86, 0xdd] {
        packet[21] -= 1;
        return;
    }
    packet[22] -= 1;
    let header = etherparse::Ipv4HeaderSlice::from_slice(&packet[14..]).expect("IPv4").to_header();
    let checksum = header.calc_header_checksum();
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
}

fn check_header(name: &str, packet: &[u8]) {
    if let Ok(sliced) = SlicedPacket::from_ethernet(packet)
        && let Some(NetSlice::Ipv4(ip)) = sliced.net
    {
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "{name}: checksum");
    }
}

const A: &str = "10.244.1.2";
const B: &str = "10.244.1.3";
const A6: &str = "fd00:10:244:1::2";
const B6: &str = "fd00:10:244:1::3";
const MAPPED_AT: usize = 22;

#[test]
fn from_pod() {
    let mut fixture = Fixture::new();
    let to_b = Bytes::Sent { to: pod_mac(1), from: GATEWAY_MAC, hop: false };
    let uplink = fixture.uplink.mac;
    let direct = Bytes::Sent { to: Mac::new(NEIGHBOUR_MAC), from: uplink, hop: true };
    let tunnel_mac = fixture.config.tunnel_mac;
    let tunnel = Bytes::Sent { to: tunnel_mac, from: fixture.host.mac, hop: true };
    let mut mapped = udp(A6, B6, 64, 1, 1);
    mapped[MAPPED_AT..MAPPED_AT + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]);
    let mut vlan = tcp(A, B, 64);
    vlan[12..14].copy_from_slice(&[0x81, 0]);
    let mut broken = tcp(A, B, 64);
    broken[14] = 0x4f;
    broken.truncate(40);
    #[rustfmt::skip]
    let rows = [
        ("to a neighbour", tcp(A, B, 64), (REDIRECT, "pod_to_pod", to_b)),
        ("to a neighbour, IPv6", tcp(A6, B6, 64), (REDIRECT, "pod_to_pod", to_b)),
        ("to a neighbour, TTL 1", tcp(A, B, 1), (REDIRECT, "pod_to_pod", to_b)),
        ("direct", tcp(A, "10.244.2.9", 64), (REDIRECT, "pod_to_direct", direct)),
        ("direct, IPv6 behind an IPv4 node", tcp(A6, "fd00:10:244:2::9", 64), (REDIRECT, "pod_to_direct", direct)),
        ("direct, TTL 1", tcp(A, "10.244.2.9", 1), (REDIRECT, "pod_expired", Bytes::ToHost)),
        ("direct, too big", udp(A, "10.244.2.9", 64, 9, 1473), (REDIRECT, "pod_too_big", Bytes::ToHost)),
        ("direct, just fits", udp(A, "10.244.2.9", 64, 9, 1472), (REDIRECT, "pod_to_direct", direct)),
        ("direct, no route to the node", tcp(A, "10.244.4.9", 64), (SHOT, "no_route", Bytes::Same)),
        ("tunnel", tcp(A, "10.244.3.9", 64), (REDIRECT, "pod_to_tunnel", tunnel)),
        ("tunnel, IPv6", tcp(A6, "fd00:10:244:3::9", 2), (REDIRECT, "pod_to_tunnel", tunnel)),
        ("tunnel, hop limit 1", tcp(A6, "fd00:10:244:3::9", 1), (REDIRECT, "pod_expired", Bytes::ToHost)),
        ("to the node's pod address", tcp(A, "10.244.1.1", 64), (REDIRECT, "pod_to_host", Bytes::ToHost)),
        ("to the node", udp(A, "192.168.1.11", 64, 53, 9), (REDIRECT, "pod_to_host", Bytes::ToHost)),
        ("to the world", tcp(A, "203.0.113.10", 64), (REDIRECT, "pod_to_host", Bytes::ToHost)),
        ("to the world, IPv6", tcp(A6, "2001:db8::1", 64), (REDIRECT, "pod_to_host", Bytes::ToHost)),
        ("to the address of empty places", tcp(A6, "::", 64), (REDIRECT, "pod_to_host", Bytes::ToHost)),
        ("to a node's tunnel port", udp(A, "192.168.1.12", 64, 8472, 9), (SHOT, "tunnel_port", Bytes::Same)),
        ("to the world's tunnel port", udp(A, "203.0.113.10", 64, 8472, 9), (REDIRECT, "pod_to_host", Bytes::ToHost)),
        ("nobody in the cluster", tcp(A, "10.244.77.9", 64), (SHOT, "unknown_pod", Bytes::Same)),
        ("nobody on this node", tcp(A6, "fd00:10:244:1::77", 64), (SHOT, "unknown_pod", Bytes::Same)),
        ("source of the neighbour", tcp(B, "10.244.2.9", 64), (SHOT, "spoofed_source", Bytes::Same)),
        ("source of the node", tcp("10.244.1.1", B, 64), (SHOT, "spoofed_source", Bytes::Same)),
        ("source of the world", tcp("203.0.113.10", B, 64), (SHOT, "spoofed_source", Bytes::Same)),
        ("multicast", udp(A, "224.0.0.251", 64, 5353, 9), (SHOT, "multicast", Bytes::Same)),
        ("multicast, IPv6", udp(A6, "ff02::fb", 64, 5353, 9), (SHOT, "multicast", Bytes::Same)),
        ("to everybody's MAC", to_mac(tcp(A, B, 64), [255; 6]), (SHOT, "multicast", Bytes::Same)),
        ("IPv4-mapped source", mapped, (SHOT, "mapped_address", Bytes::Same)),
        ("VLAN tag without a tag", vlan, (SHOT, "unknown_protocol", Bytes::Same)),
        ("cut off", broken, (SHOT, "malformed", Bytes::Same)),
        ("ARP for a neighbour", arp_request([10, 244, 1, 2], [10, 244, 1, 3]), (SHOT, "unknown_protocol", Bytes::Same)),
        ("ARP of another", arp_request([10, 244, 1, 3], [169, 254, 1, 1]), (SHOT, "spoofed_source", Bytes::Same)),
        ("solicitation for a neighbour", solicitation(A6, B6), (SHOT, "multicast", Bytes::Same)),
    ];
    for (name, packet, row) in rows {
        let ifindex = fixture.pods[0].ifindex;
        let outcome = fixture.run(names::PROGRAM_FROM_POD, ifindex, &packet);
        check(&fixture, name, &packet, &outcome, row);
    }
}

#[test]
fn a_pod_that_is_gone_gets_nothing_more() {
    for displaced in [&[][..], &[A, A6, B, B6]] {
        let mut fixture = Fixture::new();
        let [a, b] = fixture.pods;
        let from_a = names::PROGRAM_FROM_POD;
        fixture.stay_on_a_processor();
        fixture.displace(displaced);
        for packet in [tcp(A, B, 64), tcp(A6, B6, 64)] {
            let packet = to_mac(packet, a.mac.octets);
            let outcome = fixture.run(from_a, a.ifindex, &packet);
            assert_eq!(outcome.counted, [("pod_to_pod", 1)].into());
            let lie = fixture.run(from_a, b.ifindex, &packet);
            assert_eq!(lie.counted, [("spoofed_source", 1)].into());
        }
        fixture.remove_pod(B);
        let packet = to_mac(tcp(A, B, 64), a.mac.octets);
        let gone = fixture.run(from_a, a.ifindex, &packet);
        assert_eq!(gone.counted, [("unknown_pod", 1)].into());
    }
}

/// Only what the map says: the rest of the decision is each packet's own.
#[test]
fn what_is_said_of_nodes_is_remembered_and_forgotten_with_the_version() {
    let mut fixture = Fixture::new();
    let [a, b] = fixture.pods;
    let from_a = names::PROGRAM_FROM_POD;
    fixture.stay_on_a_processor();
    for (source, destination) in [(A, "10.244.2.9"), (A6, "fd00:10:244:2::9")] {
        let packet = to_mac(tcp(source, destination, 64), a.mac.octets);
        let first = fixture.run(from_a, a.ifindex, &packet);
        assert_eq!(first.counted, [("pod_to_direct", 1)].into());
        assert_eq!(fixture.run(from_a, a.ifindex, &packet), first);
        let lie = fixture.run(from_a, b.ifindex, &packet);
        assert_eq!(lie.counted, [("spoofed_source", 1)].into());
        let last_hop = fixture.run(from_a, a.ifindex, &tcp(source, destination, 1));
        assert_eq!(last_hop.counted, [("pod_expired", 1)].into());
    }
    fixture.put_node("10.244.2.0/24", "192.168.1.13", NodeEntry::TUNNEL);
    let packet = to_mac(tcp(A, "10.244.2.9", 64), a.mac.octets);
    let known = fixture.run(from_a, a.ifindex, &packet);
    assert_eq!(known.counted, [("pod_to_direct", 1)].into(), "it was not remembered");
    fixture.set_config(Config { maps_version: 1, ..fixture.config });
    let forgotten = fixture.run(from_a, a.ifindex, &packet);
    assert_eq!(forgotten.counted, [("pod_to_tunnel", 1)].into());
}

#[test]
fn source_routes_are_refused() {
    let mut fixture = Fixture::new();
    let mut packet = tcp(A, B, 64);
    let options = [131u8, 7, 4, 10, 244, 1, 3, 0];
    packet.splice(34..34, options);
    packet[14] = 0x47;
    let length = u16::try_from(packet.len() - 14).expect("short");
    packet[16..18].copy_from_slice(&length.to_be_bytes());
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
    assert_eq!((outcome.action, outcome.counted), (SHOT, [("source_route", 1)].into()));
    packet[34] = 7;
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
    assert_eq!((outcome.action, outcome.counted), (REDIRECT, [("pod_to_pod", 1)].into()));
}

#[test]
fn the_gateway_answers() {
    let mut fixture = Fixture::new();
    let request = arp_request([10, 244, 1, 2], [169, 254, 1, 1]);
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &request);
    assert_eq!((outcome.action, &outcome.counted), (REDIRECT, &[("pod_answered", 1)].into()));
    assert_eq!(outcome.packet[20..22], [0, 2], "an ARP reply");
    assert_eq!(outcome.packet[22..28], GATEWAY_MAC.octets);

    for source in [A6, "fe80::1234"] {
        let request = solicitation(source, "fe80::1");
        let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &request);
        assert_eq!((outcome.action, &outcome.counted), (REDIRECT, &[("pod_answered", 1)].into()));
        assert_eq!(outcome.packet.len(), 86);
        assert_eq!(outcome.packet[80..86], GATEWAY_MAC.octets);
    }
    let request = solicitation(B6, "fe80::1");
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &request);
    assert_eq!((outcome.action, outcome.counted), (SHOT, [("multicast", 1)].into()));
}

#[test]
fn to_pod() {
    let mut fixture = Fixture::new();
    #[rustfmt::skip]
    let rows = [
        ("its own", tcp(B, A, 64), (NEXT, "delivered_to_pod", Bytes::Same)),
        ("its own, IPv6", tcp(B6, A6, 64), (NEXT, "delivered_to_pod", Bytes::Same)),
        ("another's", tcp(A, B, 64), (SHOT, "not_for_this_pod", Bytes::Same)),
        ("the node's", tcp(A, "10.244.1.1", 64), (SHOT, "not_for_this_pod", Bytes::Same)),
        ("ARP", arp_request([10, 244, 1, 1], [10, 244, 1, 2]), (SHOT, "unknown_protocol", Bytes::Same)),
    ];
    for (name, packet, row) in rows {
        let outcome = fixture.run(names::PROGRAM_TO_POD, fixture.pods[0].ifindex, &packet);
        check(&fixture, name, &packet, &outcome, row);
    }
}

#[test]
fn from_host() {
    let mut fixture = Fixture::new();
    let to_a = Bytes::Sent { to: pod_mac(0), from: GATEWAY_MAC, hop: false };
    let uplink = fixture.uplink.mac;
    let direct = Bytes::Sent { to: Mac::new(NEIGHBOUR_MAC), from: uplink, hop: false };
    let tunnel_mac = fixture.config.tunnel_mac;
    let tunnel = Bytes::Sent { to: tunnel_mac, from: fixture.host.mac, hop: false };
    let host = "10.244.1.1";
    #[rustfmt::skip]
    let rows = [
        ("to a pod", tcp(host, A, 1), (REDIRECT, "host_to_pod", to_a)),
        ("from the world", tcp("203.0.113.10", A, 9), (REDIRECT, "host_to_pod", to_a)),
        ("direct", tcp(host, "10.244.2.9", 1), (REDIRECT, "host_to_direct", direct)),
        ("tunnel", tcp(host, "10.244.3.9", 1), (REDIRECT, "host_to_tunnel", tunnel)),
        ("direct, no route", tcp(host, "10.244.4.9", 9), (SHOT, "no_route", Bytes::Same)),
        ("direct, too big", udp(host, "10.244.2.9", 9, 9, 1477), (SHOT, "too_big", Bytes::Same)),
        ("nobody", tcp(host, "10.244.1.99", 9), (SHOT, "unknown_pod", Bytes::Same)),
        ("the world", tcp(host, "203.0.113.10", 9), (SHOT, "unknown_pod", Bytes::Same)),
        ("multicast", udp(host, "224.0.0.22", 1, 1, 1), (SHOT, "multicast", Bytes::Same)),
        ("ARP", arp_request([10, 244, 1, 1], [10, 244, 1, 2]), (SHOT, "unknown_protocol", Bytes::Same)),
    ];
    for (name, packet, row) in rows {
        let outcome = fixture.run(names::PROGRAM_FROM_HOST, fixture.host.ifindex, &packet);
        check(&fixture, name, &packet, &outcome, row);
    }
}

#[test]
fn from_net() {
    let mut fixture = Fixture::new();
    let mac = fixture.uplink.mac.octets;
    let here = |packet| to_mac(packet, mac);
    let to_a = Bytes::Sent { to: pod_mac(0), from: GATEWAY_MAC, hop: true };
    let remote = "10.244.2.9";
    let router = "192.168.1.1";
    let mut mapped = here(udp(B6, A6, 64, 1, 1));
    mapped[MAPPED_AT..MAPPED_AT + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]);
    #[rustfmt::skip]
    let rows = [
        ("to a pod", here(tcp(remote, A, 64)), (REDIRECT, "net_to_pod", to_a)),
        ("to a pod, IPv6", here(tcp("fd00:10:244:2::9", A6, 2)), (REDIRECT, "net_to_pod", to_a)),
        ("TTL 1", here(tcp(remote, A, 1)), (REDIRECT, "net_expired", Bytes::ToHost)),
        ("to the node among pods", here(tcp(remote, "10.244.1.1", 1)), (REDIRECT, "net_to_host", Bytes::ToHost)),
        ("from an unknown node", here(tcp("10.244.9.9", A, 64)), (REDIRECT, "net_to_pod", to_a)),
        ("from a tunnel peer", here(tcp("10.244.3.9", A, 64)), (REDIRECT, "net_to_pod", to_a)),
        ("with our own source", here(tcp(B, A, 64)), (SHOT, "own_source", Bytes::Same)),
        ("from a node", here(tcp("192.168.1.12", A, 64)), (NEXT, "net_passed", Bytes::Same)),
        ("from the world", here(tcp("203.0.113.10", A, 64)), (NEXT, "net_passed", Bytes::Same)),
        ("to the node", here(tcp(remote, "192.168.1.11", 64)), (NEXT, "net_passed", Bytes::Same)),
        ("to another MAC", to_mac(tcp(remote, A, 64), [2, 9, 9, 9, 9, 9]), (NEXT, "net_passed", Bytes::Same)),
        ("to everybody's MAC", to_mac(tcp(remote, A, 64), [255; 6]), (NEXT, "net_passed", Bytes::Same)),
        ("ARP", here(arp_request([192, 168, 1, 1], [192, 168, 1, 11])), (NEXT, "net_passed", Bytes::Same)),
        ("IPv4-mapped source", mapped, (SHOT, "mapped_address", Bytes::Same)),
        ("error about a pod's packet", here(too_big(router, A, &tcp(A, remote, 9))), (REDIRECT, "net_to_pod", to_a)),
        (
            "error about a pod's packet, IPv6",
            here(too_big("2001:db8::1", A6, &tcp(A6, "fd00:10:244:2::9", 9))),
            (REDIRECT, "net_to_pod", to_a),
        ),
        ("error about the world", here(too_big(router, A, &tcp(A, "203.0.113.10", 9))), (NEXT, "net_passed", Bytes::Same)),
        ("error about another's packet", here(too_big(router, A, &tcp(B, remote, 9))), (NEXT, "net_passed", Bytes::Same)),
        (
            "error about a packet to a node",
            here(too_big(router, A, &tcp(A, "192.168.1.12", 9))),
            (NEXT, "net_passed", Bytes::Same),
        ),
    ];
    for (name, packet, row) in rows {
        let outcome = fixture.run(names::PROGRAM_FROM_NET, fixture.uplink.ifindex, &packet);
        check(&fixture, name, &packet, &outcome, row);
    }
    fixture.set_config(Config { flags: 0, ..fixture.config });
    for source in ["10.244.9.9", "10.244.3.9"] {
        let packet = here(tcp(source, A, 64));
        let outcome = fixture.run(names::PROGRAM_FROM_NET, fixture.uplink.ifindex, &packet);
        assert_eq!((outcome.action, outcome.counted), (SHOT, [("not_tunnelled", 1)].into()));
    }
}

#[test]
fn nothing_is_believed_without_tunnel_metadata() {
    let mut fixture = Fixture::new();
    for (packet, counter) in [
        (tcp("10.244.3.9", A, 64), "tunnel_vni"),
        (arp_request([10, 244, 1, 1], [10, 244, 1, 2]), "unknown_protocol"),
    ] {
        let outcome = fixture.run(names::PROGRAM_FROM_TUNNEL, fixture.tunnel.ifindex, &packet);
        assert_eq!((outcome.action, outcome.counted), (SHOT, [(counter, 1)].into()));
    }
}

#[test]
fn without_a_configuration_pods_are_silent_and_the_network_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.set_config(Config { abi_version: 0, ..fixture.config });
    let [pod, _] = fixture.pods;
    #[rustfmt::skip]
    let rows = [
        (names::PROGRAM_FROM_POD, pod.ifindex, SHOT, "no_config"),
        (names::PROGRAM_TO_POD, pod.ifindex, SHOT, "no_config"),
        (names::PROGRAM_FROM_HOST, fixture.host.ifindex, SHOT, "no_config"),
        (names::PROGRAM_FROM_TUNNEL, fixture.tunnel.ifindex, SHOT, "no_config"),
        (names::PROGRAM_FROM_NET, fixture.uplink.ifindex, NEXT, "net_passed"),
    ];
    for (program, ifindex, action, counter) in rows {
        let packet = to_mac(tcp("10.244.2.9", A, 64), fixture.uplink.mac.octets);
        let outcome = fixture.run(program, ifindex, &packet);
        assert_eq!((outcome.action, outcome.counted), (action, [(counter, 1)].into()), "{program}");
    }
}
