//! `pw_config`: what the programs know about their node.

use super::{Addr, Mac};

/// The one value of `pw_config`, at index 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// [`ABI_VERSION`](super::ABI_VERSION) of the agent that wrote it; 0: not written yet.
    pub abi_version: u32,
    /// Differs after every change of `pw_nodes`, so that what programs remember of it is forgotten. Beside the version, because every packet asks for both.
    pub maps_version: u32,
    /// Interface index of `podwire0`.
    pub host_ifindex: u32,
    /// Interface index of the VXLAN device; 0: none.
    pub tunnel_ifindex: u32,
    /// VXLAN network identifier.
    pub tunnel_vni: u32,
    /// UDP port of VXLAN, host order.
    pub tunnel_port: u32,
    /// MAC of `podwire0`.
    pub host_mac: Mac,
    /// MAC of the VXLAN device: the same on every node ([`TUNNEL_MAC`]).
    pub tunnel_mac: Mac,
    /// Bits: [`Config::ACCEPT_DIRECT`], [`Config::OUTER_BY_STACK`], [`Config::ALL_NEAR`].
    pub flags: u32,
    /// The node's registered IPv4 address, source of the outer header; unspecified: none.
    pub node_ipv4: Addr,
    /// The node's registered IPv6 address, likewise.
    pub node_ipv6: Addr,
}

const _: () = assert!(size_of::<Config>() == 72 && align_of::<Config>() == 4);

/// MAC of every node's VXLAN device, so that a sender knows it without asking (locally administered).
pub const TUNNEL_MAC: Mac = Mac::new([0x02, 0x50, 0x57, 0x00, 0x00, 0x01]);

impl Config {
    /// Packets of pods of other nodes may arrive on the uplink as they are (`direct`, `auto`).
    pub const ACCEPT_DIRECT: u32 = 1;
    /// Outer packets of VXLAN must pass the host stack: it has IPsec policies.
    pub const OUTER_BY_STACK: u32 = 2;
    /// Every address of `pw_pods` has its place in `pw_near`: what is not there is nowhere.
    pub const ALL_NEAR: u32 = 4;
}

/// MAC of the host side of every pod's veth, so that any pod's gateway is known without a look-up
/// (locally administered; no interface with it shares a link with another).
pub const GATEWAY_MAC: Mac = Mac::new([0x02, 0x50, 0x57, 0x00, 0x00, 0x02]);

/// IPv4 gateway of every pod: link-local (RFC 3927), on no interface.
pub const GATEWAY_IPV4: [u8; 4] = [169, 254, 1, 1];

/// IPv6 gateway of every pod: `fe80::1`, on no interface.
pub const GATEWAY_IPV6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
