//! Answers to a pod that asks for its gateway's MAC.

use crate::abi::Mac;
use crate::abi::config::{GATEWAY_IPV4, GATEWAY_IPV6};
use crate::packet::{Bytes, ETHERTYPE_ARP, ETHERTYPE_IPV6, Headers};
use crate::upper::PROTOCOL_ICMPV6;

/// Length of an ARP packet for IPv4 over Ethernet, with the Ethernet header.
pub const ARP_LEN: usize = 42;
/// Length of a neighbour advertisement with one option, with the Ethernet header.
pub const ADVERTISEMENT_LEN: usize = 86;

/// Hardware type Ethernet, protocol IPv4, lengths 6 and 4, operation "request" (RFC 826).
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// The IPv4 address and MAC that ask for the gateway; none if the packet asks for anything else.
#[inline(always)]
pub fn arp_question<B: Bytes + ?Sized>(bytes: &B) -> Option<([u8; 4], Mac)> {
    let head = bytes.head::<8>(14)?;
    let sender_mac = bytes.head::<6>(22)?;
    let sender = bytes.head::<4>(28)?;
    let target = bytes.head::<4>(38)?;
    (head == ARP_REQUEST && target == GATEWAY_IPV4).then_some((sender, Mac::new(sender_mac)))
}

/// Writes the ARP reply that names `gateway` (RFC 826).
#[inline(always)]
pub fn arp_answer(reply: &mut [u8; ARP_LEN], sender: [u8; 4], sender_mac: Mac, gateway: Mac) {
    reply[0..6].copy_from_slice(&sender_mac.octets);
    reply[6..12].copy_from_slice(&gateway.octets);
    reply[12..14].copy_from_slice(&ETHERTYPE_ARP.to_ne_bytes());
    reply[14..22].copy_from_slice(&ARP_REQUEST);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&gateway.octets);
    reply[28..32].copy_from_slice(&GATEWAY_IPV4);
    reply[32..38].copy_from_slice(&sender_mac.octets);
    reply[38..42].copy_from_slice(&sender);
}

/// Whether this is a valid neighbour solicitation for the gateway (RFC 4861, 7.1.1) that wants an
/// answer; one from `::` (duplicate address detection) does not.
#[inline(always)]
pub fn is_solicitation<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> bool {
    if headers.protocol != PROTOCOL_ICMPV6 || headers.ttl != 255 {
        return false;
    }
    let Some([kind, code]) = bytes.at::<2>(54) else { return false };
    let Some(target) = bytes.at::<16>(62) else { return false };
    kind == 135 && code == 0 && target == GATEWAY_IPV6 && !headers.source.is_unspecified()
}

/// Writes the neighbour advertisement that names `gateway` (RFC 4861, 4.4): solicited, override, router.
#[inline(always)]
pub fn advertisement(
    reply: &mut [u8; ADVERTISEMENT_LEN],
    asker: [u8; 16],
    asker_mac: Mac,
    gateway: Mac,
) {
    reply[0..6].copy_from_slice(&asker_mac.octets);
    reply[6..12].copy_from_slice(&gateway.octets);
    reply[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_ne_bytes());
    // Version 6, payload of 32 bytes, hop limit 255.
    reply[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, PROTOCOL_ICMPV6, 255]);
    reply[22..38].copy_from_slice(&GATEWAY_IPV6);
    reply[38..54].copy_from_slice(&asker);
    let [high, low] = advertisement_checksum(asker, gateway);
    reply[54..62].copy_from_slice(&[136, 0, high, low, 0xe0, 0, 0, 0]);
    reply[62..78].copy_from_slice(&GATEWAY_IPV6);
    reply[78] = 2;
    reply[79] = 1;
    reply[80..86].copy_from_slice(&gateway.octets);
}

/// Checksum of [`advertisement`], network order.
///
/// All words but the asker's address and the gateway's MAC are constant, so only those are summed.
#[inline(always)]
fn advertisement_checksum(asker: [u8; 16], gateway: Mac) -> [u8; 2] {
    let mut sum = CONSTANT_SUM;
    let mut i = 0;
    while i < 8 {
        sum = sum.wrapping_add(word(asker[i << 1], asker[(i << 1) | 1]));
        i = i.wrapping_add(1);
    }
    let mac = gateway.octets;
    sum = sum.wrapping_add(word(mac[0], mac[1]));
    sum = sum.wrapping_add(word(mac[2], mac[3]));
    sum = sum.wrapping_add(word(mac[4], mac[5]));
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

/// Pseudo header (source, length 32, next header 58), type and code, flags, target, option head.
const CONSTANT_SUM: u32 =
    2 * (0xfe80 + 1) + 32 + PROTOCOL_ICMPV6 as u32 + (136 << 8) + 0xe000 + 0x0201;

const fn word(high: u8, low: u8) -> u32 {
    u16::from_be_bytes([high, low]) as u32
}
