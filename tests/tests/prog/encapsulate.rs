//! VXLAN over IPv4, written by the programs: read back by an independent crate.

use std::os::fd::{AsFd as _, AsRawFd as _};

use dataplane_core::abi::{Config, names};
use etherparse::{Ethernet2Header, Ipv4Header, UdpHeader};
use tests::bpf::{
    INGRESS_IFINDEX_AT, REDIRECT, context, instruction, load, program_array, test_run_with,
};
use tests::packets::tcp;

use super::fixture::{Fixture, NEIGHBOUR, NEIGHBOUR_MAC, ip};

const A: &str = "10.244.1.2";
const A6: &str = "fd00:10:244:1::2";

#[test]
fn the_outer_headers_of_a_pods_packet() {
    let mut fixture = Fixture::new();
    let mut source_ports = Vec::new();
    for (packet, ethertype) in [
        (tcp(A, "10.244.5.9", 64), [8, 0]),
        (tcp(A6, "fd00:10:244:5::9", 64), [0x86, 0xdd]),
        (with_traffic_class(tcp(A, "10.244.5.9", 64)), [8, 0]),
    ] {
        let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
        assert_eq!((outcome.action, outcome.counted), (REDIRECT, [("pod_to_tunnel", 1)].into()));
        assert_eq!(outcome.packet.len(), packet.len() + 50);

        let (ethernet, rest) = Ethernet2Header::from_slice(&outcome.packet).expect("Ethernet");
        assert_eq!(ethernet.destination, NEIGHBOUR_MAC);
        assert_eq!(ethernet.source, fixture.uplink.mac.octets);
        assert_eq!(ethernet.ether_type.0, 0x0800);
        let (ip, rest) = Ipv4Header::from_slice(rest).expect("IPv4");
        assert_eq!((ip.source, ip.destination), ([192, 168, 1, 11], [192, 168, 1, 12]));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!(usize::from(ip.total_len), packet.len() + 36);
        assert_eq!((ip.time_to_live, ip.protocol.0), (64, 17));
        assert!(!ip.dont_fragment && !ip.more_fragments && ip.fragment_offset.value() == 0);
        let tos = if ethertype == [8, 0] { packet[15] } else { 0 };
        assert_eq!(ip.dscp.value() << 2 | ip.ecn.value(), tos, "those of the inner packet");
        let (udp, rest) = UdpHeader::from_slice(rest).expect("UDP");
        assert_eq!((udp.destination_port, udp.checksum), (8472, 0));
        assert_eq!(usize::from(udp.length), packet.len() + 16);
        assert!(udp.source_port >= 49_152, "{}", udp.source_port);
        source_ports.push(udp.source_port);
        let (vxlan, inner) = rest.split_at(8);
        assert_eq!(vxlan, [8, 0, 0, 0, 0, 0, 7, 0]);
        assert_eq!(inner[..6], fixture.config.tunnel_mac.octets);
        assert_eq!(inner[6..12], fixture.host.mac.octets);
        assert_eq!(inner[12..14], ethertype);
        // One hop less and its checksum, which another test looks at, apart.
        let same = if ethertype == [8, 0] { 26 } else { 22 };
        assert_eq!(inner[same..], packet[same..]);
    }
    assert_eq!(source_ports[0], source_ports[2], "a flow keeps its port");
    assert_ne!(source_ports[0], source_ports[1], "flows differ");
}

#[test]
fn the_hosts_own_packets_keep_their_hops() {
    let mut fixture = Fixture::new();
    let packet = tcp("10.244.1.1", "10.244.5.9", 1);
    let outcome = fixture.run(names::PROGRAM_FROM_HOST, fixture.host.ifindex, &packet);
    assert_eq!((outcome.action, outcome.counted), (REDIRECT, [("host_to_tunnel", 1)].into()));
    assert_eq!(outcome.packet[64..], packet[14..]);
}

/// For `bpf_set_hash` and `bpf_tail_call` (linux/bpf.h).
const SET_HASH: i32 = 48;
const TAIL_CALL: i32 = 12;

/// A card may give packets a hash that many flows have in common, as here.
#[test]
fn the_hash_of_a_card_is_not_that_of_a_flow() {
    let mut fixture = Fixture::new();
    let array = program_array(fixture.descriptor(names::PROGRAM_FROM_HOST)).expect("an array");
    let program = load(&[
        instruction(0xbf, 6, 1, 0, 0),                 // r6 = r1
        instruction(0xb7, 2, 0, 0, 7),                 // r2 = 7
        instruction(0x85, 0, 0, 0, SET_HASH),          // call
        instruction(0xbf, 1, 6, 0, 0),                 // r1 = r6
        instruction(0x18, 2, 1, 0, array.as_raw_fd()), // r2 = the array
        instruction(0, 0, 0, 0, 0),                    // its other half
        instruction(0xb7, 3, 0, 0, 0),                 // r3 = 0
        instruction(0x85, 0, 0, 0, TAIL_CALL),         // call
        instruction(0xb7, 0, 0, 0, 0),                 // r0 = 0
        instruction(0x95, 0, 0, 0, 0),                 // exit
    ]);
    let program = program.expect("the kernel takes it");
    let source_port = |from: u32, to: &str| {
        let mut context = context(fixture.host.ifindex);
        context[INGRESS_IFINDEX_AT..][..4].copy_from_slice(&from.to_ne_bytes());
        let mut out = [0; 512];
        let packet = tcp("192.168.1.99", to, 64);
        let ran = test_run_with(program.as_fd(), &context, &packet, 1, &mut out);
        assert_eq!(ran.expect("a test run").action, REDIRECT);
        u16::from_be_bytes([out[34], out[35]])
    };
    let [one, other] = ["10.244.5.9", "10.244.5.10"];
    let uplink = fixture.uplink.ifindex;
    assert_ne!(source_port(uplink, one), source_port(uplink, other), "forwarded: by its own");
    assert_eq!(source_port(0, one), source_port(0, other), "the node's own: its socket's");
}

#[test]
fn where_the_host_stack_must_see_it_the_device_encapsulates() {
    let mut fixture = Fixture::new();
    let flags = fixture.config.flags | Config::OUTER_BY_STACK;
    fixture.set_config(Config { flags, ..fixture.config });
    let packet = tcp(A, "10.244.5.9", 64);
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
    assert_eq!((outcome.action, outcome.counted), (REDIRECT, [("pod_to_tunnel", 1)].into()));
    assert_eq!(outcome.packet.len(), packet.len());
    assert_eq!(outcome.packet[..6], fixture.config.tunnel_mac.octets);
}

#[test]
fn rules_by_the_nodes_address_choose_the_way() {
    let mut fixture = Fixture::new();
    ip(&["rule", "add", "from", "192.168.1.11", "lookup", "100"]);
    ip(&["route", "add", "blackhole", NEIGHBOUR, "table", "100"]);
    let packet = tcp(A, "10.244.5.9", 64);
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
    assert_eq!(outcome.packet.len(), packet.len(), "the device finds what to do");
    let packet = tcp(A, "10.244.2.9", 64);
    let outcome = fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
    assert_eq!(outcome.counted, [("no_route", 1)].into());
}

/// The same with a DSCP and ECN, and the checksum that belongs to them.
fn with_traffic_class(mut packet: Vec<u8>) -> Vec<u8> {
    packet[15] = 0xb9;
    let mut header = Ipv4Header::from_slice(&packet[14..]).expect("IPv4").0;
    header.header_checksum = header.calc_header_checksum();
    packet[14..34].copy_from_slice(&header.to_bytes());
    packet
}
