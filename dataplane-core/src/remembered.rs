//! What a processor remembers of earlier packets, so that it need not ask again.

use crate::abi::names::{HOPS, KNOWN_NODES};
use crate::abi::{KnownNode, NextHop, NodeEntry};
use crate::hash::{folded, scattered};
use crate::ip::Ip;
use crate::packet::ETH_LEN;

impl KnownNode {
    /// The place of an address among [`KNOWN_NODES`].
    #[inline(always)]
    pub const fn slot(address: &Ip) -> usize {
        scattered(folded(address), KNOWN_NODES)
    }

    /// Whether it tells what the maps of this version say of the address.
    #[inline(always)]
    pub fn is_of(&self, address: &Ip, maps_version: u32) -> bool {
        self.address == *address && self.maps_version == maps_version
    }

    /// What `pw_nodes` said.
    #[inline(always)]
    pub fn node(&self) -> Option<&NodeEntry> {
        (self.has_node != 0).then_some(&self.node)
    }

    /// Remembers what it said. `maps_version` is [`Config::maps_version`](crate::abi::Config::maps_version), read
    /// before it was asked.
    #[inline(always)]
    pub const fn set(&mut self, address: &Ip, maps_version: u32, node: Option<&NodeEntry>) {
        self.has_node = 0;
        if let Some(node) = node {
            self.node = *node;
            self.has_node = 1;
        }
        self.address = *address;
        self.maps_version = maps_version;
    }
}

/// For how many ticks of the kernel's clock a next hop is sent to before it is asked for again: the tick that it
/// was asked in and the next, which are 2 to 20 ms.
const HOP_TICKS: u64 = 2;

impl NextHop {
    /// The place of a node's next hop among [`HOPS`].
    #[inline(always)]
    pub const fn slot(node: &Ip) -> usize {
        scattered(folded(node), HOPS)
    }

    /// Whether it leads to the node, and was asked for a moment before `now`, which counts ticks (`jiffies`).
    #[inline(always)]
    pub fn leads_to(&self, node: &Ip, now: u64) -> bool {
        self.node == *node && now.wrapping_sub(self.asked) < HOP_TICKS
    }

    /// Whether the interface takes the packet whole, or segments it: `length` from its Ethernet header,
    /// `gso_size` of its segments, 0 for one that is no aggregate. As the kernel asks when it looks the hop up
    /// (`is_skb_forwardable`, as of 6.18), which lets four bytes more pass, for a tag.
    #[inline(always)]
    pub const fn takes(&self, length: u32, gso_size: u32) -> bool {
        gso_size != 0 || length <= self.mtu.saturating_add(ETH_LEN)
    }
}
