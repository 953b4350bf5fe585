//! `pw_flows`: what a processor remembers of `pw_pods`.

use super::Mac;
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
    /// [`Config::pods_version`](super::Config::pods_version), read before any look-up.
    pub pods_version: u32,
}

const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 8);
const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 8);
