//! What the packets of one flow have in common.

use crate::hash::{OTHER, SCATTER, mixed};
use crate::packet::{Bytes, ETH_LEN, Family, Headers};
use crate::upper::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};

/// A number that all packets of a flow have in common and other flows hardly have: of addresses, and of the ports of
/// TCP, UDP and SCTP. Fragments have no ports, so that those of one packet stay together.
#[inline(always)]
pub fn flow_hash<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> u32 {
    let addresses = mixed(&headers.source, &headers.destination);
    let both = addresses.wrapping_mul(OTHER).wrapping_add(u64::from(ports(bytes, headers)));
    (both.wrapping_mul(SCATTER) >> 32) as u32
}

/// Both ports as they lie in the packet; 0 where there are none, or a fragment begins that has others behind it.
#[inline(always)]
fn ports<B: Bytes + ?Sized>(bytes: &B, headers: &Headers) -> u32 {
    let has_ports = matches!(headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP);
    if !has_ports || headers.family == Family::V4 && is_fragment(bytes) {
        return 0;
    }
    bytes.at(headers.payload_offset()).map_or(0, u32::from_ne_bytes)
}

/// Whether an IPv4 header says that its packet is one of several (RFC 791): more follow, or it is not the first.
#[inline(always)]
fn is_fragment<B: Bytes + ?Sized>(bytes: &B) -> bool {
    let field = bytes.head::<2>(ETH_LEN.wrapping_add(6)).map_or(0, u16::from_be_bytes);
    field & 0x3fff != 0
}
