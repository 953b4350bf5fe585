//! `pw_pods`: the addresses that live on this node. `pw_near`: the same by position.

use super::{Addr, Mac};

/// A value of `pw_pods`; the key is the pod's [`Addr`](super::Addr).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodEntry {
    /// Interface index of the host side of the pod's veth; of `podwire0` for [`PodEntry::HOST`].
    pub ifindex: u32,
    /// What the address belongs to: [`PodEntry::POD`] or [`PodEntry::HOST`].
    pub kind: u32,
    /// MAC of the pod's interface; of `podwire0` for [`PodEntry::HOST`].
    pub mac: Mac,
    /// MAC of the host side: what the pod takes for its gateway.
    pub gateway_mac: Mac,
    /// Zero.
    pub reserved: u32,
    /// Who owns the entry: a number that the agent never gives twice, so that a late removal cannot
    /// take the entry of the next owner of the address.
    pub generation: u64,
}

const _: () = assert!(size_of::<PodEntry>() == 32 && align_of::<PodEntry>() == 8);

impl PodEntry {
    /// Of a place in `pw_near` that nobody has.
    pub const NOBODY: u32 = 0;
    /// The address of a pod.
    pub const POD: u32 = 1;
    /// An address of the node itself among the pod addresses: the first of each of its pod CIDRs.
    pub const HOST: u32 = 2;
}

/// A value of `pw_near`, an array: an address of `pw_pods` at its [`place`](crate::near::place), where no other has it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Near {
    /// Whose entry it is; unspecified: nobody's, and then the entry's kind is [`PodEntry::NOBODY`].
    pub address: Addr,
    /// What `pw_pods` has for the address.
    pub entry: PodEntry,
}

const _: () = assert!(size_of::<Near>() == 48 && align_of::<Near>() == 8);
