//! What each processor remembers. `pw_known_nodes`: of `pw_nodes`; `pw_hops`: of the kernel's routes and neighbours.

use super::{Mac, NodeEntry};
use crate::ip::Ip;

/// One of the [`KNOWN_NODES`](super::names::KNOWN_NODES) of a processor: what `pw_nodes` said of an address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownNode {
    /// The address, network order.
    pub address: Ip,
    /// [`Config::maps_version`](super::Config::maps_version), read before `pw_nodes` was asked.
    pub maps_version: u32,
    /// Whether `node` is something: 1, else 0.
    pub has_node: u32,
    /// What it said.
    pub node: NodeEntry,
}

/// One of the [`HOPS`](super::names::HOPS) of a processor: the way to a node as the kernel had it a moment ago.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// Address of the node; unspecified: nothing is remembered.
    pub node: Ip,
    /// When the kernel was asked, in ticks of its clock since boot (`jiffies`).
    pub asked: u64,
    /// Interface that leads there.
    pub ifindex: u32,
    /// MTU of the interface, in bytes.
    pub mtu: u32,
    /// MAC of the next hop.
    pub destination_mac: Mac,
    /// MAC of the interface.
    pub source_mac: Mac,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<KnownNode>() == 48 && align_of::<KnownNode>() == 8);
const _: () = assert!(size_of::<NextHop>() == 48 && align_of::<NextHop>() == 8);
