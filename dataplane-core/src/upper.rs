//! What lies behind the IP header: options, extension headers, ports, quoted packets.
//!
//! Rarely needed: forwarding looks at addresses only. All offsets count from the Ethernet header.

use network_types::ip::IpProto;

use crate::ip::Ip;
use crate::packet::{Bytes, ETH_LEN, Family, Headers, IPV4_LEN};

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = IpProto::Icmp as u8;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = IpProto::Tcp as u8;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = IpProto::Udp as u8;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
/// IP protocol number of SCTP (RFC 9260), whose ports lie where those of TCP do.
pub const PROTOCOL_SCTP: u8 = IpProto::Sctp as u8;

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
const MOBILITY: u8 = IpProto::MobilityHeader as u8;

/// Most extension headers that are looked behind; RFC 8200 knows six, each once.
const EXTENSIONS_MAX: u32 = 8;

/// `gso_size` of an aggregate whose segments are packets of their own (`GSO_BY_FRAGS`, linux/skbuff.h).
const BY_FRAGMENTS: u32 = 0xffff;

/// Length of the hop-by-hop header that says nothing but how long a jumbogram is (RFC 2675).
pub const JUMBO_LEN: u32 = 8;

/// What every link of IPv6 carries (RFC 8200, section 5).
pub const IPV6_MTU_MIN: u32 = 1280;

/// How it begins: TCP follows, no more than 8 bytes, the option, its length.
const JUMBO: [u8; 4] = [PROTOCOL_TCP, 0, 0xc2, 4];

/// Longest frame in which the kernel does not take such a header for its own (`GRO_LEGACY_MAX_SIZE`).
const NO_JUMBO_MAX: u32 = 65_536;

/// Most IPv4 options that are looked at: 40 bytes hold no more.
const OPTIONS_MAX: u32 = 40;

/// The upper-layer protocol and where its header starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    /// IP protocol number.
    pub protocol: u8,
    /// Offset of its header.
    pub offset: u32,
}

/// Finds the upper-layer header; none in a later fragment or behind too many extension headers.
#[inline(always)]
pub fn upper<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> Option<Upper> {
    let first = Upper { protocol: headers.protocol, offset: headers.payload_offset() };
    match headers.family {
        Family::V4 if headers.later_fragment => None,
        Family::V4 => Some(first),
        Family::V6 => match headers.protocol {
            PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_ICMPV6 => Some(first),
            _ => behind_extensions(bytes, first),
        },
    }
}

/// Walks the IPv6 extension headers (RFC 8200, 4).
///
/// Not inlined: rare, and long once the loop is unrolled.
#[inline(never)]
fn behind_extensions<B: Bytes + ?Sized>(bytes: &B, first: Upper) -> Option<Upper> {
    let Upper { mut protocol, mut offset } = first;
    let mut seen = 0;
    while seen < EXTENSIONS_MAX {
        let (unit, least) = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => (8, 8),
            AUTHENTICATION => (4, 8),
            FRAGMENT => (0, 8),
            _ => return Some(Upper { protocol, offset }),
        };
        let head = bytes.at::<4>(offset)?;
        if protocol == FRAGMENT && u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0 {
            return None;
        }
        protocol = head[0];
        let length = u32::from(head[1]).wrapping_mul(unit).wrapping_add(least);
        offset = offset.wrapping_add(length);
        seen = seen.wrapping_add(1);
    }
    None
}

/// Destination port of a UDP packet, host order; none for everything else.
#[inline(always)]
pub fn udp_destination_port<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> Option<u16> {
    let upper = upper(bytes, headers)?;
    if upper.protocol != PROTOCOL_UDP {
        return None;
    }
    bytes.at::<2>(upper.offset.wrapping_add(2)).map(u16::from_be_bytes)
}

/// Whether this is an aggregate of IPv6 that is longer than its header can say (BIG TCP). The kernel puts a
/// header of [`JUMBO_LEN`] in front of TCP then, which it takes off again before it segments (as of 6.18).
#[inline(always)]
pub fn is_jumbo<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> bool {
    matches!(headers.family, Family::V6)
        && headers.protocol == HOP_BY_HOP
        && begins_as_jumbo(bytes, headers.payload_offset())
}

/// Not inlined: rare, and asked for at several places.
#[inline(never)]
fn begins_as_jumbo<B: Bytes + ?Sized>(bytes: &B, offset: u32) -> bool {
    bytes.length() > NO_JUMBO_MAX && bytes.at::<4>(offset) == Some(JUMBO)
}

/// Length of the largest packet on the wire, in bytes from the IP header: of an aggregate (`gso_size`
/// not 0) that of its segments, else that of the packet itself.
///
/// Of protocols other than TCP and UDP the segments are at least as long as what is returned; a list of
/// whole packets (SCTP), each made for the path, is taken to fit.
#[inline(always)]
pub fn wire_length<B: Bytes + ?Sized>(bytes: &B, headers: &Headers, gso_size: u32) -> u32 {
    let whole = bytes.length().wrapping_sub(ETH_LEN);
    if gso_size == 0 {
        return whole;
    }
    if gso_size == BY_FRAGMENTS {
        return 0;
    }
    let Some(upper) = upper(bytes, headers) else { return whole };
    let upper_len = match upper.protocol {
        PROTOCOL_TCP => match bytes.at::<1>(upper.offset.wrapping_add(12)) {
            Some([offset]) => u32::from(offset >> 4) << 2,
            None => return whole,
        },
        PROTOCOL_UDP => 8,
        _ => 0,
    };
    let in_front = if is_jumbo(bytes, headers) { ETH_LEN + JUMBO_LEN } else { ETH_LEN };
    let headers_len = upper.offset.wrapping_sub(in_front).wrapping_add(upper_len);
    headers_len.wrapping_add(gso_size)
}

/// Source and destination of the packet that an ICMP or ICMPv6 error quotes (RFC 792, RFC 4443).
#[inline(always)]
pub fn quoted<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> Option<(Ip, Ip)> {
    let upper = upper(bytes, headers)?;
    let [kind] = bytes.at::<1>(upper.offset)?;
    let inner = upper.offset.wrapping_add(8);
    match (headers.family, upper.protocol) {
        // Destination unreachable, time exceeded, parameter problem.
        (Family::V4, PROTOCOL_ICMP) if matches!(kind, 3 | 11 | 12) => {
            let source = bytes.at::<4>(inner.wrapping_add(12))?;
            let destination = bytes.at::<4>(inner.wrapping_add(16))?;
            Some((Ip::from_ipv4(source), Ip::from_ipv4(destination)))
        }
        // Errors are the types below 128.
        (Family::V6, PROTOCOL_ICMPV6) if kind < 128 => {
            let source = Ip::from_bytes(bytes.at::<16>(inner.wrapping_add(8))?);
            let destination = Ip::from_bytes(bytes.at::<16>(inner.wrapping_add(24))?);
            (!source.is_ipv4() && !destination.is_ipv4()).then_some((source, destination))
        }
        _ => None,
    }
}

/// Whether an IPv4 header has a source route option (LSRR 131, SSRR 137): a way around every check of
/// addresses, refused as RFC 7126 advises. Options that cannot be read count as one.
#[inline(always)]
pub fn source_routed<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> bool {
    match headers.family {
        Family::V4 if headers.header_len > IPV4_LEN => {
            options_source_route(bytes, headers.payload_offset())
        }
        Family::V4 | Family::V6 => false,
    }
}

/// Walks the IPv4 options up to `end`. Not inlined: rare, and long once the loop is unrolled.
#[inline(never)]
fn options_source_route<B: Bytes + ?Sized>(bytes: &B, end: u32) -> bool {
    let mut offset = ETH_LEN.wrapping_add(IPV4_LEN);
    let mut seen = 0;
    while seen < OPTIONS_MAX && offset < end {
        let Some([kind]) = bytes.at::<1>(offset) else { return true };
        let length = match kind {
            0 => return false,
            1 => 1,
            131 | 137 => return true,
            _ => match bytes.at::<1>(offset.wrapping_add(1)) {
                Some([length]) if length >= 2 => u32::from(length),
                _ => return true,
            },
        };
        offset = offset.wrapping_add(length);
        seen = seen.wrapping_add(1);
    }
    false
}
