//! Reading headers: against packets that an independent crate builds, and against noise.

use dataplane_core::abi::{Addr, DropReason};
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Carried, Family, Headers, carried, parse};
use dataplane_core::rewrite::{SPENT_HOP_IPV6, spend_hop_ipv4};
use dataplane_core::upper::{
    is_jumbo, quoted, source_routed, udp_destination_port, upper, wire_length,
};
use etherparse::{IpFragOffset, Ipv4Extensions, Ipv4Header, PacketBuilder, ip_number};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const A4: [u8; 4] = [10, 244, 1, 2];
const B4: [u8; 4] = [10, 244, 2, 3];
const A6: [u8; 16] = [0xfd, 0, 0, 0x10, 2, 0x44, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
const B6: [u8; 16] = [0xfd, 0, 0, 0x10, 2, 0x44, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(A4, B4, 17)
        .udp(1000, 8472)
        .write(&mut packet, payload)
        .expect("a packet");
    packet
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(A6, B6, 17)
        .udp(1000, 8472)
        .write(&mut packet, payload)
        .expect("a packet");
    packet
}

fn read(packet: &[u8]) -> Result<Headers, DropReason> {
    match carried(packet) {
        Carried::Ip(family) => parse(packet, family),
        Carried::Arp | Carried::Other => panic!("not IP"),
    }
}

#[test]
fn reads_ipv4() {
    let headers = read(&udp4(b"data")).expect("headers");
    assert_eq!(headers.family, Family::V4);
    assert_eq!(Addr::from(headers.source).to_ip(), Ipv4Addr::from(A4));
    assert_eq!(Addr::from(headers.destination).to_ip(), Ipv4Addr::from(B4));
    assert_eq!((headers.ttl, headers.protocol, headers.header_len), (17, 17, 20));
    assert_eq!(udp_destination_port(udp4(b"data").as_slice(), &headers), Some(8472));
}

#[test]
fn reads_ipv6() {
    let headers = read(&udp6(b"data")).expect("headers");
    assert_eq!(headers.family, Family::V6);
    assert_eq!(Addr::from(headers.source).to_ip(), Ipv6Addr::from(A6));
    assert_eq!(Addr::from(headers.destination).to_ip(), Ipv6Addr::from(B6));
    assert_eq!((headers.ttl, headers.protocol), (17, 17));
    assert_eq!(udp_destination_port(udp6(b"data").as_slice(), &headers), Some(8472));
}

#[test]
fn refuses_what_no_router_forwards() {
    type Break = fn(&mut Vec<u8>);
    let cases: [(&str, Break, DropReason); 8] = [
        ("version 5", |p| p[14] = 0x55, DropReason::Malformed),
        ("to loopback", |p| p[30] = 127, DropReason::Malformed),
        ("header of 16 bytes", |p| p[14] = 0x44, DropReason::Malformed),
        ("longer than it is", |p| p[16] = 0x7f, DropReason::Malformed),
        ("shorter than its header", |p| p[16..18].fill(0), DropReason::Malformed),
        ("cut off in the header", |p| p.truncate(30), DropReason::Malformed),
        ("cut off behind Ethernet", |p| p.truncate(14), DropReason::Malformed),
        ("cut off in the data", |p| p.truncate(44), DropReason::Malformed),
    ];
    for (name, change, reason) in cases {
        let mut packet = udp4(b"some data");
        change(&mut packet);
        assert_eq!(read(&packet), Err(reason), "IPv4, {name}");
    }
    let cases: [(&str, Break, DropReason); 6] = [
        ("version 4", |p| p[14] = 0x40, DropReason::Malformed),
        (
            "to loopback",
            |p| p[38..54].copy_from_slice(&Ipv6Addr::LOCALHOST.octets()),
            DropReason::Malformed,
        ),
        ("longer than it is", |p| p[18] = 0x7f, DropReason::Malformed),
        ("cut off in the header", |p| p.truncate(50), DropReason::Malformed),
        ("mapped source", |p| p[22..34].copy_from_slice(&MAPPED), DropReason::MappedAddress),
        ("mapped destination", |p| p[38..50].copy_from_slice(&MAPPED), DropReason::MappedAddress),
    ];
    for (name, change, reason) in cases {
        let mut packet = udp6(b"some data");
        change(&mut packet);
        assert_eq!(read(&packet), Err(reason), "IPv6, {name}");
    }
}

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

#[test]
fn padding_behind_the_packet_is_no_error() {
    let mut packet = udp4(b"");
    packet.extend([0; 18]);
    assert!(read(&packet).is_ok());
}

#[test]
fn ports_are_behind_options_and_extension_headers_only_in_the_first_fragment() {
    let mut header = Ipv4Header::new(12, 64, ip_number::UDP, A4, B4).expect("a header");
    header.options = [148u8, 4, 0, 0].into();
    for (offset, expected) in [(0, Some(4789)), (10, None)] {
        header.fragment_offset = IpFragOffset::try_new(offset).expect("an offset");
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ip(etherparse::IpHeaders::Ipv4(header.clone(), Ipv4Extensions::default()))
            .udp(1, 4789)
            .write(&mut packet, b"data")
            .expect("a packet");
        let headers = read(&packet).expect("headers");
        assert_eq!(headers.header_len, 24);
        assert_eq!(udp_destination_port(packet.as_slice(), &headers), expected);
        assert!(!source_routed(packet.as_slice(), &headers), "router alert is harmless");
    }
    // IPv6: hop-by-hop options (8 bytes), destination options (16 bytes), first and later fragment.
    for (offset, expected) in [(0u16, Some(4789)), (8, None)] {
        let mut packet = udp6(b"data");
        let udp = packet.split_off(54);
        packet[20] = 0;
        packet.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([17, 0]);
        packet.extend((offset << 3 | 1).to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(&udp);
        let payload = u16::try_from(packet.len() - 54).expect("short").to_be_bytes();
        packet[18..20].copy_from_slice(&payload);
        packet[54 + 32 + 2..54 + 32 + 4].copy_from_slice(&4789u16.to_be_bytes());
        let headers = read(&packet).expect("headers");
        assert_eq!(udp_destination_port(packet.as_slice(), &headers), expected);
    }
}

#[test]
fn source_routes_are_found_behind_other_options() {
    let cases: [(&[u8], bool); 7] = [
        (&[131, 7, 4, 1, 2, 3, 4, 0], true),
        (&[137, 7, 4, 1, 2, 3, 4, 0], true),
        (&[1, 1, 7, 5, 4, 0, 0, 131, 3, 4, 0, 0], true),
        (&[7, 7, 4, 0, 0, 0, 0, 0], false),
        (&[0, 131, 7, 4], false),
        (&[68, 0, 0, 0], true),
        (&[1, 1, 1, 1], false),
    ];
    for (options, expected) in cases {
        let mut header = Ipv4Header::new(4, 64, ip_number::TCP, A4, B4).expect("a header");
        header.options = etherparse::Ipv4Options::try_from(options).expect("options");
        header.set_payload_len(4).expect("short");
        let mut packet = vec![0; 12];
        packet.extend([8, 0]);
        header.write(&mut packet).expect("a header");
        packet.extend([0; 4]);
        let headers = read(&packet).expect("headers");
        assert_eq!(source_routed(packet.as_slice(), &headers), expected, "{options:?}");
    }
}

#[test]
fn length_on_the_wire_of_an_aggregate_is_that_of_its_segments() {
    let packet = udp4(&[0; 3000]);
    let headers = read(&packet).expect("headers");
    assert_eq!(wire_length(packet.as_slice(), &headers, 0), 3028);
    assert_eq!(wire_length(packet.as_slice(), &headers, 1400), 1428);
    let mut packet = packet;
    packet[23] = 132;
    let headers = read(&packet).expect("headers");
    assert_eq!(wire_length(packet.as_slice(), &headers, 1400), 1420, "header unknown");
    assert_eq!(wire_length(packet.as_slice(), &headers, 0xffff), 0, "a list of whole packets");
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(A6, B6, 17)
        .tcp(1, 2, 3, 4)
        .options_raw(&[1; 12])
        .expect("options")
        .write(&mut packet, &[0; 9000])
        .expect("a packet");
    let headers = read(&packet).expect("headers");
    assert_eq!(wire_length(packet.as_slice(), &headers, 1388), 1388 + 40 + 32);
}

/// An aggregate of TCP without options as the kernel makes it (BIG TCP): IPv4 says a length of 0, IPv6 the same
/// and the true one in a hop-by-hop header in front of TCP.
fn big_tcp(family: Family, data: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match family {
        Family::V4 => ethernet.ipv4(A4, B4, 17),
        Family::V6 => ethernet.ipv6(A6, B6, 17),
    };
    ip.tcp(1, 2, 3, 4).write(&mut packet, &[7; 9]).expect("a packet");
    packet.resize(packet.len() - 9 + data, 7);
    match family {
        Family::V4 => packet[16..18].fill(0),
        Family::V6 => {
            packet[18..20].fill(0);
            packet[20] = 0;
            let length = u32::try_from(20 + data + 8).expect("short").to_be_bytes();
            packet.splice(54..54, [[6, 0, 0xc2, 4], length].concat());
        }
    }
    packet
}

#[test]
fn the_path_has_room_for_an_aggregate_whose_segments_fit() {
    for (family, segment) in [(Family::V4, 1460), (Family::V6, 1440)] {
        for data in [65_600, 190_000, 524_000] {
            let packet = big_tcp(family, data);
            let headers = read(&packet).expect("headers");
            assert_eq!(
                wire_length(packet.as_slice(), &headers, segment),
                1500,
                "{family:?} {data}"
            );
            assert_eq!(is_jumbo(packet.as_slice(), &headers), family == Family::V6);
            let upper = upper(packet.as_slice(), &headers).expect("TCP");
            assert_eq!((upper.protocol, packet[upper.offset as usize + 1]), (6, 1), "its ports");
        }
    }
}

#[test]
fn what_only_says_that_it_is_one_is_none() {
    let mut packet = big_tcp(Family::V4, 65_600);
    packet.truncate(14 + 65_535);
    assert_eq!(read(&packet), Err(DropReason::Malformed), "IPv4 can say this length");
    for (name, at, value) in [
        ("UDP", 54, 17),
        ("a longer header", 55, 1),
        ("another option", 56, 5),
        ("its length", 57, 2),
    ] {
        let mut packet = big_tcp(Family::V6, 65_600);
        packet[at] = value;
        let headers = read(&packet).expect("headers");
        assert!(!is_jumbo(packet.as_slice(), &headers), "{name}");
    }
    let mut packet = big_tcp(Family::V6, 1400);
    let headers = read(&packet).expect("headers");
    assert!(!is_jumbo(packet.as_slice(), &headers), "no aggregate is that short");
    assert_eq!(wire_length(packet.as_slice(), &headers, 0), 1468);
    packet.truncate(56);
    assert!(!is_jumbo(packet.as_slice(), &headers), "cut off");
}

#[test]
fn errors_quote_the_packet_that_caused_them() {
    let inner = &udp4(b"data")[14..];
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([192, 168, 1, 1], A4, 64)
        .icmpv4_raw(3, 4, [0, 0, 5, 0])
        .write(&mut packet, inner)
        .expect("a packet");
    let headers = read(&packet).expect("headers");
    assert_eq!(quoted(packet.as_slice(), &headers), Some((Ip::from_ipv4(A4), Ip::from_ipv4(B4))));
    packet[34] = 8;
    assert_eq!(quoted(packet.as_slice(), &headers), None, "an echo request quotes nothing");

    let inner = &udp6(b"data")[14..];
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(B6, A6, 64)
        .icmpv6_raw(2, 0, [0, 0, 5, 0])
        .write(&mut packet, inner)
        .expect("a packet");
    let headers = read(&packet).expect("headers");
    assert_eq!(quoted(packet.as_slice(), &headers), Some((Ip::from_bytes(A6), Ip::from_bytes(B6))));
}

proptest! {
    /// The incremental checksum is the one that a full computation gives.
    #[test]
    fn spending_a_hop_keeps_the_checksum(
        source: [u8; 4], destination: [u8; 4], ttl in 1u8.., id: u16, protocol: u8, length in 0u16..1400,
    ) {
        let mut header =
            Ipv4Header::new(length, ttl, protocol.into(), source, destination).expect("a header");
        header.identification = id;
        let before = header.calc_header_checksum();
        header.time_to_live -= 1;
        let (ttl_after, checksum) = spend_hop_ipv4(ttl, before.to_be_bytes());
        prop_assert_eq!(ttl_after, header.time_to_live);
        // 0x0000 and 0xffff are the same sum in one's complement; a header never sums to 0.
        prop_assert_eq!(u16::from_be_bytes(checksum) % 0xffff, header.calc_header_checksum() % 0xffff);
    }

    /// As the kernel adds it to the sum that a network card took over everything behind the Ethernet header.
    #[test]
    fn a_sum_over_the_packet_follows_a_hop_of_ipv6(
        mut packet in proptest::collection::vec(any::<u8>(), 40..90),
        hops in 1..=u8::MAX,
    ) {
        packet[7] = hops;
        let (sum, overflow) = sum_of(&packet).overflowing_add(SPENT_HOP_IPV6);
        packet[7] -= 1;
        // 0x0000 and 0xffff are the same sum in one's complement.
        prop_assert_eq!(folded(sum + u32::from(overflow)) % 0xffff, folded(sum_of(&packet)) % 0xffff);
    }

    /// No bytes make the readers panic or read beyond the packet.
    #[test]
    fn noise_is_read_without_a_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
        if packet.len() >= 15 {
            packet[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
            packet[14] = if v6 { 0x60 } else { 0x40 | (packet[14] & 0xf) };
        }
        if let Carried::Ip(family) = carried(packet.as_slice())
            && let Ok(headers) = parse(packet.as_slice(), family)
        {
            let _ = upper(packet.as_slice(), &headers);
            let _ = quoted(packet.as_slice(), &headers);
            let _ = source_routed(packet.as_slice(), &headers);
            let _ = wire_length(packet.as_slice(), &headers, 1);
            let _ = is_jumbo(packet.as_slice(), &headers);
        }
    }

    /// Of BIG TCP the length on the wire is that of a segment, whatever the aggregate's is.
    #[test]
    fn a_segment_of_big_tcp_is_no_longer_than_one_of_any_other(
        v6: bool, data in 65_600usize..524_000, segment in 1u32..9000,
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let packet = big_tcp(family, data);
        let headers = read(&packet).expect("headers");
        let fixed = if v6 { 40 } else { 20 };
        prop_assert_eq!(wire_length(packet.as_slice(), &headers, segment), fixed + 20 + segment);
    }

    /// A total length of 0 is a lie in every IPv4 packet whose header could say its length.
    #[test]
    fn without_a_length_no_ipv4_packet_passes_that_could_say_it(carried_len in 20usize..=65_535) {
        let mut packet = big_tcp(Family::V4, 65_600);
        packet.truncate(14 + carried_len);
        prop_assert_eq!(read(&packet), Err(DropReason::Malformed));
    }

    /// The two forms of an address are the same address.
    #[test]
    fn addresses_keep_their_bytes(bytes: [u8; 16], v4: [u8; 4]) {
        prop_assert_eq!(Addr::from(Ip::from_bytes(bytes)), Addr { bytes });
        prop_assert_eq!(Ip::from_bytes(bytes).is_ipv4(), Ipv6Addr::from(bytes).to_ipv4_mapped().is_some());
        prop_assert_eq!(Addr::from(Ip::from_ipv4(v4)), Addr::from(Ipv4Addr::from(v4)));
        prop_assert_eq!(Ip::from_bytes(bytes).is_link_local(), Ipv6Addr::from(bytes).is_unicast_link_local());
    }
}

/// Of 16-bit words as they lie in memory.
fn sum_of(packet: &[u8]) -> u32 {
    let words = packet.chunks(2);
    words.map(|word| u32::from(u16::from_ne_bytes([word[0], *word.get(1).unwrap_or(&0)]))).sum()
}

fn folded(sum: u32) -> u32 {
    let once = (sum & 0xffff) + (sum >> 16);
    (once & 0xffff) + (once >> 16)
}
