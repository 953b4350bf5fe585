//! The headers that VXLAN puts in front of a packet (RFC 7348, section 5).

use crate::abi::Mac;
use crate::packet::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, IPV4_LEN, IPV6_LEN};
use crate::upper::PROTOCOL_UDP;

/// TTL of the outer header: that of the kernel's own packets.
pub const OUTER_TTL: u8 = 64;

/// From the outer IPv4 header to the end of the inner Ethernet header, in bytes.
pub const OVERHEAD_IPV4: u32 = IPV4_LEN + UDP_LEN + VXLAN_LEN + ETH_LEN;
/// The same with an outer IPv6 header.
pub const OVERHEAD_IPV6: u32 = IPV6_LEN + UDP_LEN + VXLAN_LEN + ETH_LEN;

/// The longest frame whose outer IPv4 header can say its length. An aggregate of more has to be segmented before.
pub const INNER_IPV4_MAX: u32 = 0xffff + ETH_LEN - OVERHEAD_IPV4;

const UDP_LEN: u32 = 8;
const VXLAN_LEN: u32 = 8;

/// Version 4 and a header of five words.
const VERSION_AND_LENGTH: u8 = 0x45;
/// VXLAN's flag for a valid network identifier.
const VNI_VALID: u8 = 0x08;
/// Ports that nobody registers (RFC 6335): what RFC 7348 asks of a source port.
const SOURCE_PORT_FIRST: u16 = 49_152;

/// What distinguishes one packet's headers from another's, over IPv4.
pub struct Outer {
    /// MAC of the next hop, and of the interface towards it.
    pub macs: [Mac; 2],
    /// Source and destination address, each one word in network order.
    pub addresses: [u32; 2],
    /// DSCP and ECN, those of the inner packet (RFC 6040, normal mode).
    pub traffic_class: u8,
    /// Identification, in case a router fragments the packet.
    pub identification: u16,
    /// From the outer IPv4 header to the end, in bytes.
    pub length: u32,
    /// Hash of the inner flow, which becomes the source port: routers keep a flow on one path by it.
    pub flow_hash: u32,
    /// UDP destination port.
    pub port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Destination and source MAC of the inner frame.
    pub inner_macs: [Mac; 2],
    /// Family of the inner packet.
    pub family: Family,
}

impl Outer {
    /// The 64 bytes from the outer to the inner Ethernet header, as words in the order of the wire.
    ///
    /// Without DF, as the kernel's VXLAN device does it: a narrow link in the middle fragments rather than
    /// loses. Without a UDP checksum (RFC 7348, section 5).
    #[inline(always)]
    pub fn words(&self) -> [u64; 8] {
        let [to, from] = self.macs.map(halves);
        let [inner_to, inner_from] = self.inner_macs.map(halves);
        let [[s0, s1], [d0, d1]] = self.addresses.map(address_halves);
        let length = self.length as u16;
        let first = u16::from_be_bytes([VERSION_AND_LENGTH, self.traffic_class]);
        let hops = u16::from_be_bytes([OUTER_TTL, PROTOCOL_UDP]);
        let checksum = checksum(&[first, length, self.identification, hops, s0, s1, d0, d1]);
        let source_port = SOURCE_PORT_FIRST | (self.flow_hash ^ self.flow_hash >> 16) as u16;
        let udp_length = length.wrapping_sub(IPV4_LEN as u16);
        let outer_type = u16::from_be(ETHERTYPE_IPV4);
        let inner_type = u16::from_be(match self.family {
            Family::V4 => ETHERTYPE_IPV4,
            Family::V6 => ETHERTYPE_IPV6,
        });
        [
            word([to[0], to[1], to[2], from[0]]),
            word([from[1], from[2], outer_type, first]),
            word([length, self.identification, 0, hops]),
            word([checksum, s0, s1, d0]),
            word([d1, source_port, self.port, udp_length]),
            word([0, u16::from_be_bytes([VNI_VALID, 0]), 0, (self.vni >> 8) as u16]),
            word([(self.vni << 8) as u16, inner_to[0], inner_to[1], inner_to[2]]),
            word([inner_from[0], inner_from[1], inner_from[2], inner_type]),
        ]
    }
}

/// The sum of what lies behind the outer Ethernet header in these words, as a network card sums up a packet (RFC 1071).
#[inline(always)]
pub fn sum(words: &[u64; 8]) -> u32 {
    let [_, second, rest @ ..] = words;
    let [.., a, b] = second.to_ne_bytes();
    let mut sum = u64::from(u16::from_ne_bytes([a, b]));
    for word in rest {
        sum = sum.wrapping_add(word & 0xffff_ffff).wrapping_add(word >> 32);
    }
    // Thirteen numbers of 32 bits carry at most four bits, and their sum at most one.
    sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    sum as u32
}

/// Four numbers as they lie on the wire.
#[inline(always)]
fn word(parts: [u16; 4]) -> u64 {
    let [[a, b], [c, d], [e, f], [g, h]] = parts.map(u16::to_be_bytes);
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
fn halves(mac: Mac) -> [u16; 3] {
    let [a, b, c, d, e, f] = mac.octets;
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), u16::from_be_bytes([e, f])]
}

#[inline(always)]
fn address_halves(address: u32) -> [u16; 2] {
    let [a, b, c, d] = address.to_ne_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// The checksum of a header of these numbers (RFC 1071).
#[inline(always)]
fn checksum(header: &[u16; 8]) -> u16 {
    let mut sum = 0_u32;
    for part in header {
        sum = sum.wrapping_add(u32::from(*part));
    }
    // Eight 16-bit numbers carry at most three bits, and their sum at most one.
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    !(sum as u16)
}
