//! Which packets need no decision, because one like them was delivered a moment ago.
//!
//! Between pods of one node the two look-ups are most of what a decision costs. Whoever forwards
//! remembers what they said for a [`FlowKey`], and forgets it when `pw_pods` changes.

use crate::abi::FlowKey;
use crate::abi::names::FLOWS;
use crate::packet::{Family, Headers, IPV4_LEN};
use crate::upper::{PROTOCOL_TCP, PROTOCOL_UDP};

impl FlowKey {
    /// The key of a packet whose fate hangs on its addresses alone; none for packets that must be looked
    /// at more closely: IPv4 with options, IPv6 other than TCP and UDP.
    ///
    /// `ifindex` is the interface it arrived on, `pods_version` is
    /// [`Config::pods_version`](crate::abi::Config::pods_version), read before any look-up.
    #[inline(always)]
    pub fn new(headers: &Headers, ifindex: u32, pods_version: u32) -> Option<Self> {
        let plain = match headers.family {
            Family::V4 => headers.header_len == IPV4_LEN,
            Family::V6 => matches!(headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP),
        };
        plain.then_some(Self {
            source: headers.source,
            destination: headers.destination,
            ifindex,
            pods_version,
        })
    }

    /// The place of the flow among [`FLOWS`].
    #[inline(always)]
    pub const fn slot(&self) -> usize {
        // What differs between pods of one node is at the end of their addresses; the multiplication
        // carries it to the top.
        let [.., source] = self.source.to_words();
        let [.., destination] = self.destination.to_words();
        let both = source as u64 | ((destination as u64) << 32);
        (both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize & (FLOWS - 1)
    }
}
