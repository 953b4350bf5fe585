//! The last steps of a packet: MACs, hop, and the redirect.

use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, TC_ACT_REDIRECT,
};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_peer};
use dataplane_core::abi::{Counter, DropReason, NodeEntry, Path, PodEntry};
use dataplane_core::ip::Ip;
use dataplane_core::packet::Bytes as _;

use crate::debug::debug_verdict;
use crate::encapsulate::encapsulate;
use crate::next_hop::{blank, to_neighbour, to_node};
use crate::packet::Packet;
use crate::stats::count;
use crate::tunnel::set_key;
use crate::verdict::{Program, Way, refuse};

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
    redirected(way, action, path, way.packet.length())
}

/// Delivers an ordinary packet to a pod of this node, with nothing else to do.
#[inline(always)]
pub(crate) fn plainly(packet: &Packet, program: Program, pod: &PodEntry) -> i32 {
    packet.set_macs(pod.mac, pod.gateway_mac);
    packet.clear_mark();
    // SAFETY: a plain helper call without pointers.
    let action = unsafe { bpf_redirect_peer(pod.ifindex, 0) };
    if action == i64::from(TC_ACT_REDIRECT) {
        count(packet.length(), Counter::Path(Path::PodToPod));
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
    redirected(way, action, path, way.packet.length())
}

/// Sends through VXLAN: encapsulated here where that can be, else by the VXLAN device.
#[inline(always)]
pub(crate) fn tunnel(way: &Way<'_>, node: &NodeEntry, path: Path) -> i32 {
    let (node, length) = (Ip::from(&node.node), way.packet.length());
    spend_hop(way, path);
    if let Some(uplink) = encapsulate(way, &node) {
        // SAFETY: a plain helper call without pointers.
        let action = unsafe { bpf_redirect(uplink, 0) };
        return redirected(way, action, path, length);
    }
    if set_key(way, &node).is_err() {
        return refuse(way.packet, way.program, Some(way.headers), DropReason::TunnelFailed);
    }
    // Every tunnel device has the same MAC, so it is no source: VXLAN drops what seems to be its own.
    way.packet.set_macs(way.config.tunnel_mac, way.config.host_mac);
    // SAFETY: a plain helper call without pointers.
    let action = unsafe { bpf_redirect(way.config.tunnel_ifindex, 0) };
    redirected(way, action, path, length)
}

/// Sends plain through the uplink.
///
/// The next hop is asked for the node's address: the pod's own would find our cluster route.
#[inline(always)]
pub(crate) fn direct(way: &Way<'_>, node: &NodeEntry, path: Path) -> i32 {
    let (mut fib, length) = (blank(), way.packet.length());
    let fib = &mut fib.0;
    match to_node(way, fib, &Ip::from(&node.node)) {
        Ok(hop) => {
            way.packet.set_macs(hop.destination_mac, hop.source_mac);
            spend_hop(way, path);
            // SAFETY: a plain helper call without pointers.
            let action = unsafe { bpf_redirect(hop.ifindex, 0) };
            redirected(way, action, path, length)
        }
        Err(BPF_FIB_LKUP_RET_NO_NEIGH) => {
            spend_hop(way, path);
            forget_route(way, node, path);
            redirected(way, to_neighbour(fib), path, length)
        }
        Err(BPF_FIB_LKUP_RET_FRAG_NEEDED) if path.spends_hop() => to_host(way, Path::PodTooBig),
        Err(BPF_FIB_LKUP_RET_FRAG_NEEDED) => {
            refuse(way.packet, way.program, Some(way.headers), DropReason::TooBig)
        }
        Err(_) => refuse(way.packet, way.program, Some(way.headers), DropReason::NoRoute),
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

#[inline(always)]
fn spend_hop(way: &Way<'_>, path: Path) {
    if path.spends_hop() {
        way.packet.spend_hop(way.headers);
    }
}

/// Counts the packet under its path with the length that it came with, if the kernel took the redirect.
#[inline(always)]
fn redirected(way: &Way<'_>, action: i64, path: Path, length: u32) -> i32 {
    if action == i64::from(TC_ACT_REDIRECT) {
        debug_verdict!(way.packet, way.program, "redirect", path as u32);
        count(length, Counter::Path(path));
        return TC_ACT_REDIRECT;
    }
    refuse(way.packet, way.program, Some(way.headers), DropReason::RedirectFailed)
}
