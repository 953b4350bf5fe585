//! Tunnel metadata: what the outer header says or shall say.

use core::mem::size_of;

use aya_ebpf::bindings::{BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key};
use aya_ebpf::helpers::{bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};
use dataplane_core::decide::{TunnelKey, family_of};
use dataplane_core::ip::Ip;
use dataplane_core::outer::OUTER_TTL;
use dataplane_core::packet::Family;

use crate::packet::Packet;
use crate::stack::{Shifted, put_address};
use crate::verdict::Way;

/// Sets the outer header of a packet to a node: addresses, VNI, and the inner DSCP and ECN.
///
/// The UDP checksum is left out over IPv4 only: an IPv6 receiver drops such packets (RFC 6935).
///
/// # Errors
/// When the kernel refuses it.
#[inline(always)]
pub(crate) fn set_key(way: &Way<'_>, node: &Ip) -> Result<(), ()> {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut aligned = unsafe { Shifted::<bpf_tunnel_key>::zeroed() };
    let key = &mut aligned.value;
    // Volatile: merged with the address behind it, it would be an unaligned store (see `stack.rs`).
    // SAFETY: a field of a live structure.
    unsafe { (&raw mut key.tunnel_id).write_volatile(way.config.tunnel_vni) };
    key.tunnel_tos = way.headers.traffic_class;
    key.tunnel_ttl = OUTER_TTL;
    let flags = match family_of(node) {
        Family::V4 => {
            let local = Ip::from(&way.config.node_ipv4);
            // The helper takes IPv4 addresses in host order and IPv6 addresses in network order.
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(node.ipv4_word());
            key.__bindgen_anon_3.local_ipv4 = u32::from_be(local.ipv4_word());
            BPF_F_ZERO_CSUM_TX
        }
        Family::V6 => {
            // SAFETY: in a `Shifted` key both addresses lie at multiples of 8 (offsets 4 and 28).
            unsafe {
                put_address(&raw mut key.__bindgen_anon_1, node);
                put_address(&raw mut key.__bindgen_anon_3, &Ip::from(&way.config.node_ipv6));
            }
            BPF_F_TUNINFO_IPV6
        }
    };
    // SAFETY: `key` is initialised and its size is given.
    let failed = unsafe {
        bpf_skb_set_tunnel_key(way.packet.skb(), &raw mut *key, KEY_LEN, u64::from(flags))
    };
    if failed == 0 { Ok(()) } else { Err(()) }
}

/// Reads who sent the outer packet, and to which address; none if there is no tunnel metadata.
#[inline(always)]
pub(crate) fn key(packet: &Packet) -> Option<TunnelKey> {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut aligned = unsafe { Shifted::<bpf_tunnel_key>::zeroed() };
    let key = &mut aligned.value;
    // SAFETY: `key` has the size that is given. The helper refuses the family that it is not asked for,
    // so at most one of the two calls fills it; the union's member of that family is read.
    unsafe {
        if bpf_skb_get_tunnel_key(packet.skb(), &raw mut *key, KEY_LEN, 0) == 0 {
            let remote = Ip::from_ipv4(key.__bindgen_anon_1.remote_ipv4.to_be_bytes());
            let local = Ip::from_ipv4(key.__bindgen_anon_3.local_ipv4.to_be_bytes());
            return Some(TunnelKey { vni: key.tunnel_id, remote, local });
        }
        let flags = u64::from(BPF_F_TUNINFO_IPV6);
        if bpf_skb_get_tunnel_key(packet.skb(), &raw mut *key, KEY_LEN, flags) == 0 {
            let remote = Ip::from_words(key.__bindgen_anon_1.remote_ipv6);
            let local = Ip::from_words(key.__bindgen_anon_3.local_ipv6);
            return Some(TunnelKey { vni: key.tunnel_id, remote, local });
        }
    }
    None
}

const KEY_LEN: u32 = size_of::<bpf_tunnel_key>() as u32;
