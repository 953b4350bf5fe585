//! Which packets need no decision, because one like them was delivered a moment ago.
//!
//! Between pods of one node the two look-ups are most of what a decision costs. Whoever forwards
//! remembers what they said for a [`FlowKey`], and forgets it when `pw_pods` or `pw_nodes` changes.
//! Where more has to be decided, the look-ups alone are remembered.

use crate::abi::names::{FLOWS, HOPS, LOOK_UPS};
use crate::abi::{FlowKey, LookUp, NextHop};
use crate::decide::Found;
use crate::ip::Ip;
use crate::packet::{ETH_LEN, Family, Headers, IPV4_LEN};
use crate::upper::{PROTOCOL_TCP, PROTOCOL_UDP};

impl FlowKey {
    /// The key of a packet whose fate hangs on its addresses alone; none for packets that must be looked
    /// at more closely: IPv4 with options, IPv6 other than TCP and UDP.
    ///
    /// `ifindex` is the interface it arrived on, `maps_version` is
    /// [`Config::maps_version`](crate::abi::Config::maps_version), read before any look-up.
    #[inline(always)]
    pub fn new(headers: &Headers, ifindex: u32, maps_version: u32) -> Option<Self> {
        let plain = match headers.family {
            Family::V4 => headers.header_len == IPV4_LEN,
            Family::V6 => matches!(headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP),
        };
        plain.then_some(Self::of_look_ups(headers, ifindex, maps_version))
    }

    /// The key of what the maps say of a packet's addresses, which any packet has.
    #[inline(always)]
    pub const fn of_look_ups(headers: &Headers, ifindex: u32, maps_version: u32) -> Self {
        Self { source: headers.source, destination: headers.destination, ifindex, maps_version }
    }

    /// The place of the flow among [`FLOWS`].
    #[inline(always)]
    pub const fn slot(&self) -> usize {
        self.hash() & (FLOWS - 1)
    }

    /// The place of the look-ups among [`LOOK_UPS`].
    #[inline(always)]
    pub const fn slot_of_look_ups(&self) -> usize {
        self.hash() & (LOOK_UPS - 1)
    }

    #[inline(always)]
    const fn hash(&self) -> usize {
        // What differs between pods of one node is at the end of their addresses; the multiplication
        // carries it to the top.
        let [.., source] = self.source.to_words();
        let [.., destination] = self.destination.to_words();
        let both = source as u64 | ((destination as u64) << 32);
        scattered(both)
    }
}

/// A byte that differs where the words do.
#[inline(always)]
const fn scattered(words: u64) -> usize {
    (words.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

impl LookUp {
    /// Remembers what was found.
    #[inline(always)]
    pub const fn set(&mut self, key: &FlowKey, found: &Found<'_>) {
        self.has = 0;
        if let Some(sender) = found.sender {
            self.sender = *sender;
            self.has |= Self::SENDER;
        }
        if let Some(pod) = found.pod {
            self.pod = *pod;
            self.has |= Self::POD;
        }
        if let Some(node) = found.node {
            self.node = *node;
            self.has |= Self::NODE;
        }
        self.key = *key;
    }

    /// What was found.
    #[inline(always)]
    pub fn found(&self) -> Found<'_> {
        Found {
            sender: (self.has & Self::SENDER != 0).then_some(&self.sender),
            pod: (self.has & Self::POD != 0).then_some(&self.pod),
            node: (self.has & Self::NODE != 0).then_some(&self.node),
        }
    }
}

/// For how many ticks of the kernel's clock a next hop is sent to before it is asked for again: the tick that it
/// was asked in and the next, which are 2 to 20 ms.
const HOP_TICKS: u64 = 2;

impl NextHop {
    /// The place of a node's next hop among [`HOPS`].
    #[inline(always)]
    pub const fn slot(node: &Ip) -> usize {
        let [.., a, b] = node.to_words();
        scattered(a as u64 | ((b as u64) << 32)) & (HOPS - 1)
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
