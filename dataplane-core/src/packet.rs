//! Reads the Ethernet and IP headers.

use network_types::eth::{EthHdr, EtherType};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::abi::{DropReason, Mac};
use crate::ip::Ip;

/// Length of an Ethernet header without VLAN tag, in bytes.
pub const ETH_LEN: u32 = EthHdr::LEN as u32;
/// Length of an IPv4 header without options, in bytes.
pub const IPV4_LEN: u32 = Ipv4Hdr::LEN as u32;
/// Length of an IPv6 header without extension headers, in bytes.
pub const IPV6_LEN: u32 = Ipv6Hdr::LEN as u32;

/// EtherType of IPv4, network order.
pub const ETHERTYPE_IPV4: u16 = EtherType::Ipv4 as u16;
/// EtherType of ARP, network order.
pub const ETHERTYPE_ARP: u16 = EtherType::Arp as u16;
/// EtherType of IPv6, network order.
pub const ETHERTYPE_IPV6: u16 = EtherType::Ipv6 as u16;

/// First byte of the loopback network of IPv4, which is on no wire (RFC 1122, 3.2.1.3 g). A host may let
/// such packets in (`route_localnet`), so the services of its loopback would be open to pods.
const LOOPBACK: u32 = 127;

/// A packet's bytes from its Ethernet header on.
pub trait Bytes {
    /// Length of the packet in bytes.
    fn length(&self) -> u32;

    /// `N` bytes at an offset known at compile time, within the first 54 bytes; none beyond the end.
    fn head<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// `N` words at an offset known at compile time, within the first 54 bytes, as they lie there (network
    /// order); none beyond the end. Headers are read in words: bytes become a register each.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// `N` bytes at any offset; none beyond the end.
    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn head<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.at(offset)
    }

    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        let mut at = offset;
        for word in &mut words {
            *word = u32::from_ne_bytes(self.at(at)?);
            at = at.checked_add(4)?;
        }
        Some(words)
    }

    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

/// IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What forwarding needs of the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    /// IP version.
    pub family: Family,
    /// Source address.
    pub source: Ip,
    /// Destination address.
    pub destination: Ip,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// IPv4 protocol, or the first "next header" of IPv6.
    pub protocol: u8,
    /// IPv4: a fragment that is not the first, so nothing of the upper layer's header is in it.
    pub later_fragment: bool,
    /// Length of the IPv4 header with options, or of the fixed IPv6 header, in bytes.
    pub header_len: u32,
}

/// What a frame carries, by its EtherType.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// An IP packet.
    Ip(Family),
    /// An ARP packet.
    Arp,
    /// Anything else, VLAN tags among it.
    Other,
}

/// Reads the EtherType.
#[inline(always)]
pub fn carried<B: Bytes + ?Sized>(bytes: &B) -> Carried {
    match bytes.head::<2>(12).map(u16::from_ne_bytes) {
        Some(ETHERTYPE_IPV4) => Carried::Ip(Family::V4),
        Some(ETHERTYPE_IPV6) => Carried::Ip(Family::V6),
        Some(ETHERTYPE_ARP) => Carried::Arp,
        Some(_) | None => Carried::Other,
    }
}

/// Reads the IP header.
///
/// # Errors
/// `Malformed` for what no router would forward, `MappedAddress` for IPv4-mapped addresses on the wire.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B, family: Family) -> Result<Headers, DropReason> {
    match family {
        Family::V4 => parse_ipv4(bytes),
        Family::V6 => parse_ipv6(bytes),
    }
}

/// Reads an IPv4 header (RFC 791; what to refuse: RFC 1812, 5.2.2).
#[inline(always)]
fn parse_ipv4<B: Bytes + ?Sized>(bytes: &B) -> Result<Headers, DropReason> {
    let [head, fragment, hop, source, destination] =
        bytes.words::<5>(ETH_LEN).ok_or(DropReason::Malformed)?;
    let (head, fragment, hop) = (u32::from_be(head), u32::from_be(fragment), u32::from_be(hop));
    let header_len = ((head >> 24) & 0x0f) << 2;
    let total_len = head & 0xffff;
    let carried = bytes.length().wrapping_sub(ETH_LEN);
    // An aggregate above 64 KiB (BIG TCP) says 0.
    let total_len = if total_len == 0 && carried > 0xffff { carried } else { total_len };
    if head >> 28 != 4 || header_len < IPV4_LEN || total_len < header_len || total_len > carried {
        return Err(DropReason::Malformed);
    }
    if u32::from_be(destination) >> 24 == LOOPBACK {
        return Err(DropReason::Malformed);
    }
    Ok(Headers {
        family: Family::V4,
        source: Ip::from_ipv4_word(source),
        destination: Ip::from_ipv4_word(destination),
        ttl: (hop >> 24) as u8,
        traffic_class: (head >> 16) as u8,
        protocol: (hop >> 16) as u8,
        later_fragment: fragment & 0x1fff != 0,
        header_len,
    })
}

/// Reads an IPv6 header (RFC 8200).
#[inline(always)]
fn parse_ipv6<B: Bytes + ?Sized>(bytes: &B) -> Result<Headers, DropReason> {
    let [head, next, s0, s1, s2, s3, d0, d1, d2, d3] =
        bytes.words::<10>(ETH_LEN).ok_or(DropReason::Malformed)?;
    let (head, next) = (u32::from_be(head), u32::from_be(next));
    // Jumbograms (BIG TCP) say 0, so only what is too long is wrong.
    let payload_len = next >> 16;
    let carried = bytes.length().wrapping_sub(ETH_LEN);
    if head >> 28 != 6 || payload_len.wrapping_add(IPV6_LEN) > carried {
        return Err(DropReason::Malformed);
    }
    let source = Ip::from_words([s0, s1, s2, s3]);
    let destination = Ip::from_words([d0, d1, d2, d3]);
    if source.is_ipv4() || destination.is_ipv4() {
        return Err(DropReason::MappedAddress);
    }
    if destination.is_loopback() {
        return Err(DropReason::Malformed);
    }
    Ok(Headers {
        family: Family::V6,
        source,
        destination,
        ttl: next as u8,
        traffic_class: (head >> 20) as u8,
        protocol: (next >> 8) as u8,
        later_fragment: false,
        header_len: IPV6_LEN,
    })
}

impl Headers {
    /// Multicast, or the limited broadcast of IPv4: never forwarded.
    #[inline(always)]
    pub const fn to_many(&self) -> bool {
        match self.family {
            Family::V4 => self.destination.ipv4_word().to_ne_bytes()[0] >= 224,
            Family::V6 => self.destination.is_ipv6_multicast(),
        }
    }

    /// Offset of what follows the IPv4 header or the fixed IPv6 header, from the Ethernet header.
    #[inline(always)]
    pub const fn payload_offset(&self) -> u32 {
        ETH_LEN.wrapping_add(self.header_len)
    }
}

/// The source MAC of a frame.
#[inline(always)]
pub fn source_mac<B: Bytes + ?Sized>(bytes: &B) -> Option<Mac> {
    bytes.head::<6>(6).map(Mac::new)
}
