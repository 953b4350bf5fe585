//! Answers for the gateway: read back by an independent crate.

use dataplane_core::abi::Mac;
use dataplane_core::abi::config::{GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC};
use dataplane_core::answer::{advertisement, arp_answer, arp_question, is_solicitation};
use dataplane_core::packet::{Family, parse};
use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

const POD_MAC: [u8; 6] = [0x0a, 1, 2, 3, 4, 5];
const POD_IPV4: [u8; 4] = [10, 244, 1, 2];
const POD_IPV6: [u8; 16] = [0xfd, 0, 0, 0x10, 2, 0x44, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];

fn arp_request(target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend(POD_MAC);
    packet.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    packet.extend(POD_MAC);
    packet.extend(POD_IPV4);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

#[test]
fn arp_is_answered_for_the_gateway_only() {
    let question = arp_question(arp_request(GATEWAY_IPV4).as_slice()).expect("a question");
    assert_eq!(question, (POD_IPV4, Mac::new(POD_MAC)));
    assert_eq!(arp_question(arp_request([10, 244, 1, 3]).as_slice()), None);
    let mut reply = arp_request(GATEWAY_IPV4);
    reply[21] = 2;
    assert_eq!(arp_question(reply.as_slice()), None, "a reply is no question");
    assert_eq!(arp_question(&arp_request(GATEWAY_IPV4)[..40]), None, "cut off");
}

#[test]
fn the_arp_answer_names_the_gateway() {
    let mut reply = [0xaa; 42];
    arp_answer(&mut reply, POD_IPV4, Mac::new(POD_MAC), GATEWAY_MAC);
    let sliced = SlicedPacket::from_ethernet(&reply).expect("a packet");
    let Some(NetSlice::Arp(arp)) = sliced.net else { panic!("not ARP: {sliced:?}") };
    assert_eq!(arp.operation(), etherparse::ArpOperation::REPLY);
    assert_eq!(arp.sender_hw_addr(), GATEWAY_MAC.octets);
    assert_eq!(arp.sender_protocol_addr(), GATEWAY_IPV4);
    assert_eq!(arp.target_hw_addr(), POD_MAC);
    assert_eq!(arp.target_protocol_addr(), POD_IPV4);
    assert_eq!(reply[..6], POD_MAC);
}

fn solicitation() -> Vec<u8> {
    let mut packet = vec![0x33, 0x33, 0xff, 0, 0, 1];
    packet.extend(POD_MAC);
    packet.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    packet.extend(POD_IPV6);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1]);
    packet.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend(GATEWAY_IPV6);
    packet.extend([1, 1]);
    packet.extend(POD_MAC);
    packet
}

#[test]
fn solicitations_are_answered_for_the_gateway_only() {
    let check =
        |packet: &[u8]| is_solicitation(packet, &parse(packet, Family::V6).expect("headers"));
    assert!(check(&solicitation()));
    let change = |at: usize, to: u8| {
        let mut packet = solicitation();
        packet[at] = to;
        packet
    };
    assert!(!check(&change(21, 254)), "hop limit 254: came through a router");
    assert!(!check(&change(54, 136)), "an advertisement");
    assert!(!check(&change(55, 1)), "code 1");
    assert!(!check(&change(77, 2)), "another target");
    assert!(!check(&change(20, 17)), "UDP");
    let mut packet = solicitation();
    packet[22..38].fill(0);
    assert!(!check(&packet), "duplicate address detection");
}

#[test]
fn the_advertisement_names_the_gateway_with_a_good_checksum() {
    for asker in [POD_IPV6, [0xff; 16], [0xfe; 16]] {
        let mut reply = [0xaa; 86];
        advertisement(&mut reply, asker, Mac::new(POD_MAC), GATEWAY_MAC);
        let sliced = SlicedPacket::from_ethernet(&reply).expect("a packet");
        let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("not IPv6") };
        assert_eq!(ip.header().source(), GATEWAY_IPV6);
        assert_eq!(ip.header().destination(), asker);
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else { panic!("not ICMPv6") };
        assert!(icmp.is_checksum_valid(GATEWAY_IPV6, asker));
        let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else { panic!("type") };
        assert!(flags.router && flags.solicited && flags.r#override);
        assert_eq!(reply[62..78], GATEWAY_IPV6);
        assert_eq!(reply[78..80], [2, 1]);
        assert_eq!(reply[80..86], GATEWAY_MAC.octets);
    }
}
