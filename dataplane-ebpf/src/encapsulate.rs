//! VXLAN over IPv4 in one step: headers written here, and past the host stack to the uplink.
//!
//! The VXLAN device asks for a route, builds metadata and passes the hooks of the host stack for each
//! packet; it stays for what cannot be done here, and for all that arrives.

use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode,
};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_skb_adjust_room};
use dataplane_core::abi::Config;
use dataplane_core::decide::family_of;
use dataplane_core::ip::Ip;
use dataplane_core::outer::{INNER_IPV4_MAX, OVERHEAD_IPV4, Outer};
use dataplane_core::packet::{Bytes as _, ETH_LEN, Family};

use crate::next_hop::{blank, to_node};
use crate::verdict::Way;

/// `BPF_F_ADJ_ROOM_ENCAP_L2(n)` of `linux/bpf.h`: n bytes of inner Ethernet.
const INNER_ETHERNET: u64 = (ETH_LEN as u64) << 56;

/// What the kernel is told of the new headers, so that it can segment an aggregate behind them. Segments keep
/// their size: the pods' MTU leaves the room.
const LAYERS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | INNER_ETHERNET;

/// Puts the outer headers in front of the packet; the interface that it must leave by.
///
/// None, and the packet is as it was, where only the VXLAN device and the host stack can do it: the node has
/// no IPv4 address, a neighbour must be asked for, IPsec must see the packet, the packet is one that the
/// kernel does not encapsulate here (already in a tunnel, or an aggregate other than TCP and UDP), or an aggregate
/// is longer than an outer header can say (BIG TCP): the device takes none of these, so the kernel segments it first.
#[inline(always)]
pub(crate) fn encapsulate(way: &Way<'_>, node: &Ip) -> Option<u32> {
    if family_of(node) != Family::V4
        || way.config.flags & Config::OUTER_BY_STACK != 0
        || way.packet.length() > INNER_IPV4_MAX
    {
        return None;
    }
    let hop = to_node(way, &mut blank().0, node).ok()?;
    // Now, of the headers that are there.
    let flow_hash = way.packet.flow_hash(way.headers);
    let mode = bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
    // SAFETY: the context is valid; no packet pointer is held over the helper.
    if unsafe { bpf_skb_adjust_room(way.packet.skb(), OVERHEAD_IPV4 as i32, mode, LAYERS) } != 0 {
        return None;
    }
    let outer = Outer {
        macs: [hop.destination_mac, hop.source_mac],
        addresses: [Ip::from(&way.config.node_ipv4).ipv4_word(), node.ipv4_word()],
        traffic_class: way.headers.traffic_class,
        // SAFETY: a plain helper call.
        identification: unsafe { bpf_get_prandom_u32() } as u16,
        length: way.packet.length().wrapping_sub(ETH_LEN),
        flow_hash,
        port: way.config.tunnel_port as u16,
        vni: way.config.tunnel_vni,
        inner_macs: [way.config.tunnel_mac, way.config.host_mac],
        family: way.headers.family,
    };
    way.packet.put_outer(&outer.words());
    Some(hop.ifindex)
}
