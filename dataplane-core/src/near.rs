//! Where `pw_near` has an address.

use crate::abi::names::NEAR;
use crate::hash::{OTHER, scattered};
use crate::ip::Ip;

/// The place of an address in `pw_near`, below [`NEAR`].
///
/// Addresses of one network whose last [`BITS`] differ have places of their own. Networks lie apart by a number that
/// hangs on all that stands before; those of IPv4 begin in the first half and those of IPv6 in the second, so that
/// pods with an address of each never meet while there are fewer than half as many as places.
#[inline(always)]
pub const fn place(ip: &Ip) -> usize {
    let [network, number] = ip.0;
    let number = u64::from_be(number);
    let before = (number >> BITS).wrapping_add(u64::from_be(network).wrapping_mul(OTHER));
    let family = if ip.is_ipv4() { 0 } else { HALF };
    (number as usize ^ scattered(before, HALF) ^ family) & NEAR.wrapping_sub(1)
}

/// Of a place.
const BITS: u32 = NEAR.ilog2();

const HALF: usize = NEAR >> 1;
