//! Numbers that scatter addresses over places.

use crate::ip::Ip;

/// Odd, so that no bit is lost; any but 1, so that what it multiplies counts differently from what is beside it.
pub(crate) const OTHER: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// A multiplication by it carries what differs to the top (Knuth's multiplicative hashing).
pub(crate) const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both addresses, so that no two flows of one pod, and not the two ways of one conversation, come to the same number
/// more often than by chance.
#[inline(always)]
pub(crate) const fn mixed(source: &Ip, destination: &Ip) -> u64 {
    folded(source).wrapping_mul(OTHER).wrapping_add(folded(destination))
}

/// An address in one word: its second half, which tells pods of a node apart, and above the number of a pod the first
/// half, which tells nodes apart where each has a network of 64 bits (Kubernetes' default for IPv6).
#[inline(always)]
pub(crate) const fn folded(ip: &Ip) -> u64 {
    let [network, number] = ip.0;
    u64::from_be(number) ^ (u64::from_be(network) << 16)
}

/// One of `places`, a power of two.
#[inline(always)]
pub(crate) const fn scattered(word: u64, places: usize) -> usize {
    (word.wrapping_mul(SCATTER) >> u64::BITS.wrapping_sub(places.ilog2())) as usize
}
