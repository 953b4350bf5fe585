//! Changes to a header, as arithmetic.

/// What to add to the sum over a packet whose hop limit (IPv6) has fallen by one: 32 bits of ones' complement, in the
/// order of the machine, as the kernel has it. The hop limit is the second byte of its 16-bit word.
pub const SPENT_HOP_IPV6: u32 = !(1_u16.to_be() as u32);

/// TTL and IPv4 header checksum (both network order, as in the packet) after one hop.
///
/// Incremental update as RFC 1624, equation 3. The TTL is above 0.
#[inline(always)]
pub const fn spend_hop_ipv4(ttl: u8, checksum: [u8; 2]) -> (u8, [u8; 2]) {
    // The TTL is the high byte of its 16-bit word: the word falls by 0x0100, so the sum's complement
    // rises by it, with the carry folded back.
    let sum = (u16::from_be_bytes(checksum) as u32).wrapping_add(0x0100);
    let folded = (sum & 0xffff).wrapping_add(sum >> 16);
    (ttl.wrapping_sub(1), (folded as u16).to_be_bytes())
}
