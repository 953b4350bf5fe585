//! `pw_nodes`: what lies behind every prefix that is not a local pod.

use super::Addr;

/// A value of `pw_nodes`, a longest-prefix trie. The key is a prefix of an [`Addr`]; IPv4 prefixes are
/// [`IPV4_PREFIX_OFFSET`](super::address::IPV4_PREFIX_OFFSET) bits longer than they look.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeEntry {
    /// Address of the node that has the pods ([`NodeEntry::DIRECT`], [`NodeEntry::TUNNEL`]), in
    /// `DIRECT` of the family of the prefix; in [`NodeEntry::NODE`] the node's address of the other
    /// family; else unspecified.
    pub node: Addr,
    /// One of the constants below.
    pub kind: u32,
    /// Largest IP packet that reaches the node whole, in bytes; 0 where it has no meaning.
    pub mtu: u32,
}

const _: () = assert!(size_of::<NodeEntry>() == 24 && align_of::<NodeEntry>() == 4);

impl NodeEntry {
    /// Pods of another node, reached by plain routing through the uplink.
    pub const DIRECT: u32 = 1;
    /// Pods of another node, reached through the VXLAN device.
    pub const TUNNEL: u32 = 2;
    /// The address of a node itself, this one or another (a /32 or /128).
    pub const NODE: u32 = 3;
    /// Part of a cluster CIDR that belongs to no known node.
    pub const CLUSTER: u32 = 4;
    /// Pods of this node: as a source from outside it is a lie, as a destination without an entry in
    /// `pw_pods` nobody has the address.
    pub const OWN: u32 = 5;
}
