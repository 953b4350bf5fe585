//! `pw_flows` and `pw_look_ups`: what a processor remembers of `pw_pods` and `pw_nodes`. `pw_hops`: what it
//! remembers of the kernel's routes and neighbours.

use super::{Mac, NodeEntry, PodEntry};
use crate::ip::Ip;

/// One of the [`FLOWS`](super::names::FLOWS) of a processor: a pod that packets with this key go to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// What the packets have in common.
    pub key: FlowKey,
    /// Interface index of the host side of the receiver's veth.
    pub ifindex: u32,
    /// MAC of the receiver's interface.
    pub mac: Mac,
    /// MAC of the host side.
    pub gateway_mac: Mac,
    /// Zero; a flow fills one line of the processor's cache.
    pub reserved: u64,
}

/// What `pw_pods` and `pw_nodes` said of the addresses of packets with this key.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookUp {
    /// What the packets have in common.
    pub key: FlowKey,
    /// Of the source, if [`LookUp::SENDER`] is set.
    pub sender: PodEntry,
    /// Of the destination, if [`LookUp::POD`] is set.
    pub pod: PodEntry,
    /// Of the destination for packets that leave a pod or the host, of the source for those that arrive, if
    /// [`LookUp::NODE`] is set.
    pub node: NodeEntry,
    /// Bits: [`LookUp::SENDER`], [`LookUp::POD`], [`LookUp::NODE`].
    pub has: u32,
    /// Zero.
    pub reserved: u32,
}

impl LookUp {
    /// `sender` is something.
    pub const SENDER: u32 = 1;
    /// `pod` is something.
    pub const POD: u32 = 2;
    /// `node` is something.
    pub const NODE: u32 = 4;
}

/// All that the delivery of a packet among the pods of one node depends on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    /// Source address, network order.
    pub source: Ip,
    /// Destination address, network order.
    pub destination: Ip,
    /// Index of the interface that the packet arrived on.
    pub ifindex: u32,
    /// [`Config::maps_version`](super::Config::maps_version), read before any look-up.
    pub maps_version: u32,
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

const _: () = assert!(size_of::<NextHop>() == 48 && align_of::<NextHop>() == 8);
const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 8);
const _: () = assert!(size_of::<LookUp>() == 136 && align_of::<LookUp>() == 8);
const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 8);
