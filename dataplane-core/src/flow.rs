//! Which packets need no decision, because one like them was delivered a moment ago.
//!
//! Between pods of one node the two look-ups are most of what a decision costs. Whoever forwards
//! remembers what they said for a [`FlowKey`], and forgets it when `pw_pods` or `pw_nodes` changes.
//! Where more has to be decided, the look-ups alone are remembered.

use crate::abi::names::{FLOWS, HOPS, LOOK_UPS};
use crate::abi::{FlowKey, LookUp, NextHop};
use crate::decide::Found;
use crate::ip::Ip;
use crate::packet::{Bytes, ETH_LEN, Family, Headers, IPV4_LEN};
use crate::upper::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};

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
        self.place_of(FLOWS)
    }

    /// The place of the look-ups among [`LOOK_UPS`].
    #[inline(always)]
    pub const fn slot_of_look_ups(&self) -> usize {
        self.place_of(LOOK_UPS)
    }

    #[inline(always)]
    const fn place_of(&self, places: usize) -> usize {
        scattered(mixed(&self.source, &self.destination), places)
    }
}

/// Both addresses, so that no two flows of one pod, and not the two ways of one conversation, come to the same number
/// more often than by chance.
#[inline(always)]
const fn mixed(source: &Ip, destination: &Ip) -> u64 {
    folded(source).wrapping_mul(OTHER).wrapping_add(folded(destination))
}

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

/// Odd, so that no bit is lost; any but 1, so that source and destination count differently.
const OTHER: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// An address in one word: its second half, which tells pods of a node apart, and above the number of a pod the first
/// half, which tells nodes apart where each has a network of 64 bits (Kubernetes' default for IPv6).
#[inline(always)]
const fn folded(ip: &Ip) -> u64 {
    let [network, number] = ip.0;
    u64::from_be(number) ^ (u64::from_be(network) << 16)
}

/// A multiplication by it carries what differs to the top (Knuth's multiplicative hashing).
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One of `places`, a power of two.
#[inline(always)]
const fn scattered(word: u64, places: usize) -> usize {
    (word.wrapping_mul(SCATTER) >> u64::BITS.wrapping_sub(places.ilog2())) as usize
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
