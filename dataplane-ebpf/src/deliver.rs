//! The last steps of a packet: MACs, hop, and the redirect.

use core::mem::size_of;

use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_REDIRECT, bpf_fib_lookup as FibParams, bpf_redir_neigh,
};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use dataplane_core::abi::{Counter, DropReason, Flow, Mac, NodeEntry, Path, PodEntry};
use dataplane_core::decide::family_of;
use dataplane_core::ip::Ip;
use dataplane_core::packet::Family;

use crate::debug::debug_verdict;
use crate::packet::Packet;
use crate::stack::{Aligned, Shifted, put_address};
use crate::stats::count;
use crate::tunnel::set_key;
use crate::verdict::{Program, Way, refuse};

/// Address families of the socket interface.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// How a local pod is entered.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// Straight into the pod's namespace: only from a TC ingress hook (kernel 5.10).
    Peer,
    /// Through the host side of its veth.
    Host,
}

/// Delivers to a pod of this node.
#[inline(always)]
pub(crate) fn to_pod(way: &Way<'_>, pod: &PodEntry, door: Door, path: Path) -> i32 {
    way.packet.set_macs(pod.mac, pod.gateway_mac);
    spend_hop(way, path);
    let action = match door {
        Door::Peer => {
            way.packet.make_ordinary();
            // SAFETY: a plain helper call without pointers.
            unsafe { bpf_redirect_peer(pod.ifindex, 0) }
        }
        // SAFETY: a plain helper call without pointers.
        Door::Host => unsafe { bpf_redirect(pod.ifindex, 0) },
    };
    redirected(way, action, path)
}

/// Delivers to a pod of this node as the packets before.
#[inline(always)]
pub(crate) fn known(packet: &Packet, program: Program, flow: &Flow) -> i32 {
    packet.set_macs(flow.mac, flow.gateway_mac);
    packet.clear_mark();
    // SAFETY: a plain helper call without pointers.
    let action = unsafe { bpf_redirect_peer(flow.ifindex, 0) };
    if action == i64::from(TC_ACT_REDIRECT) {
        count(packet, Counter::Path(Path::PodToPod));
        return TC_ACT_REDIRECT;
    }
    refuse(packet, program, None, DropReason::RedirectFailed)
}

/// Lets the packet enter the host stack as an arrival on `podwire0`.
#[inline(always)]
pub(crate) fn to_host(way: &Way<'_>, path: Path) -> i32 {
    way.packet.set_destination_mac(way.config.host_mac);
    // SAFETY: a plain helper call without pointers.
    let action = unsafe { bpf_redirect(way.config.host_ifindex, u64::from(BPF_F_INGRESS)) };
    redirected(way, action, path)
}

/// Sends through the VXLAN device.
#[inline(always)]
pub(crate) fn tunnel(way: &Way<'_>, node: &NodeEntry, path: Path) -> i32 {
    if set_key(way, &Ip::from(&node.node)).is_err() {
        return refuse(way.packet, way.program, Some(way.headers), DropReason::TunnelFailed);
    }
    // Every tunnel device has the same MAC, so it is no source: VXLAN drops what seems to be its own.
    way.packet.set_macs(way.config.tunnel_mac, way.config.host_mac);
    spend_hop(way, path);
    // SAFETY: a plain helper call without pointers.
    let action = unsafe { bpf_redirect(way.config.tunnel_ifindex, 0) };
    redirected(way, action, path)
}

/// Sends plain through the uplink.
///
/// The next hop is asked for the node's address: the pod's own would find our cluster route.
#[inline(always)]
pub(crate) fn direct(way: &Way<'_>, node: &NodeEntry, path: Path) -> i32 {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut aligned = unsafe { Aligned::<FibParams>::zeroed() };
    let fib = &mut aligned.0;
    fib.ifindex = way.config.host_ifindex;
    set_destination(fib, &Ip::from(&node.node));
    // SAFETY: `fib` is initialised and its size is given.
    let found = unsafe {
        bpf_fib_lookup(way.packet.skb().cast(), &raw mut *fib, size_of::<FibParams>() as i32, 0)
    };
    match found as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => {
            way.packet.set_macs(mac(&fib.dmac), mac(&fib.smac));
            spend_hop(way, path);
            // SAFETY: a plain helper call without pointers.
            let action = unsafe { bpf_redirect(fib.ifindex, 0) };
            redirected(way, action, path)
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => {
            spend_hop(way, path);
            forget_route(way, node, path);
            redirected(way, to_neighbour(fib), path)
        }
        BPF_FIB_LKUP_RET_FRAG_NEEDED if path.spends_hop() => to_host(way, Path::PodTooBig),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            refuse(way.packet, way.program, Some(way.headers), DropReason::TooBig)
        }
        _ => refuse(way.packet, way.program, Some(way.headers), DropReason::NoRoute),
    }
}

/// Takes the host stack's route off a packet, by putting a tunnel key in its place.
///
/// A packet that waits for its neighbour is sent to the neighbour of its *route* once that is resolved
/// (`neigh_update`, as of 6.18): the route is ours through `podwire0`, whose MAC is nobody's.
#[inline(always)]
fn forget_route(way: &Way<'_>, node: &NodeEntry, path: Path) {
    if !path.spends_hop() {
        // Where it fails, the packet is lost and the next finds its neighbour.
        let _ = set_key(way, &Ip::from(&node.node));
    }
}

/// Hands the packet to the kernel's neighbour resolution, with the next hop that the look-up found.
#[inline(always)]
fn to_neighbour(fib: &FibParams) -> i64 {
    // SAFETY: all-zero is a valid value of this plain C struct; of the unions the member is read that
    // `family` names, as `bpf_fib_lookup` leaves them.
    unsafe {
        let mut aligned = Shifted::<bpf_redir_neigh>::zeroed();
        let hop = &mut aligned.value;
        // Volatile: merged with the address behind it, it would be an unaligned store (see `stack.rs`).
        (&raw mut hop.nh_family).write_volatile(u32::from(fib.family));
        if fib.family == AF_INET {
            hop.__bindgen_anon_1.ipv4_nh = fib.__bindgen_anon_4.ipv4_dst;
        } else {
            hop.__bindgen_anon_1.ipv6_nh = fib.__bindgen_anon_4.ipv6_dst;
        }
        bpf_redirect_neigh(fib.ifindex, &raw mut *hop, size_of::<bpf_redir_neigh>() as i32, 0)
    }
}

#[inline(always)]
fn set_destination(fib: &mut FibParams, node: &Ip) {
    match family_of(node) {
        Family::V4 => {
            fib.family = AF_INET;
            fib.__bindgen_anon_4.ipv4_dst = node.ipv4_word();
        }
        Family::V6 => {
            fib.family = AF_INET6;
            // SAFETY: in an `Aligned` structure the address lies at a multiple of 8 (offset 32).
            unsafe { put_address(&raw mut fib.__bindgen_anon_4, node) };
        }
    }
}

/// A MAC out of the look-up's result, which has it at an even address only: read as halfwords, because
/// the compiler would read a word and the verifier (as of 6.18) refuses unaligned access to the stack.
#[inline(always)]
fn mac(octets: &[u8; 6]) -> Mac {
    let halves = octets.as_ptr().cast::<u16>();
    // SAFETY: six bytes are three halfwords, at an even offset of a structure aligned to 8.
    let [a, b, c] = unsafe {
        [halves.read_volatile(), halves.add(1).read_volatile(), halves.add(2).read_volatile()]
    };
    let ([a0, a1], [b0, b1], [c0, c1]) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
    Mac::new([a0, a1, b0, b1, c0, c1])
}

#[inline(always)]
fn spend_hop(way: &Way<'_>, path: Path) {
    if path.spends_hop() {
        way.packet.spend_hop(way.headers);
    }
}

/// Counts the packet under its path, if the kernel took the redirect.
#[inline(always)]
fn redirected(way: &Way<'_>, action: i64, path: Path) -> i32 {
    if action == i64::from(TC_ACT_REDIRECT) {
        debug_verdict!(way.packet, way.program, "redirect", path as u32);
        count(way.packet, Counter::Path(path));
        return TC_ACT_REDIRECT;
    }
    refuse(way.packet, way.program, Some(way.headers), DropReason::RedirectFailed)
}
