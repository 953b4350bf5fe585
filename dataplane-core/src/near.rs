//! Where `pw_near` has an address.

use crate::abi::names::NEAR;
use crate::hash::{OTHER, scattered};
use crate::ip::Ip;

/// The place of an address in `pw_near`, below [`NEAR`].
///
/// Addresses of one network that differ in their last bits alone, 13 of IPv4 and 14 of IPv6, have places of their own.
/// Networks lie apart by a number that hangs on all that stands before. IPv4 has the first half; networks of IPv6 begin
/// in the second, so that pods with an address of each never meet while there are fewer than half as many as places.
#[inline(always)]
pub const fn place(ip: &Ip) -> usize {
    let [network, number] = ip.0;
    let number = u64::from_be(number);
    let (bits, half) = if ip.is_ipv4() { (BITS.wrapping_sub(1), 0) } else { (BITS, HALF) };
    let before = (number >> bits).wrapping_add(u64::from_be(network).wrapping_mul(OTHER));
    let last = (number & (1_u64 << bits).wrapping_sub(1)) as usize;
    (last ^ scattered(before, HALF) ^ half) & NEAR.wrapping_sub(1)
}

/// Of a place.
const BITS: u32 = NEAR.ilog2();

const HALF: usize = NEAR >> 1;
