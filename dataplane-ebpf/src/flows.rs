//! What this processor remembers of `pw_pods`: flows between pods of this node (`dataplane_core::flow`).

use core::arch::asm;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use dataplane_core::abi::names;
use dataplane_core::abi::{Config, Flow, FlowKey, PodEntry};

use crate::packet::Packet;

/// One value for all flows, so that the pointer to it
/// stays in the processor's cache.
#[btf_map(name = "pw_flows")]
static FLOWS: PerCpuArray<[Flow; names::FLOWS], 1> = PerCpuArray::new();

/// The version of `pw_pods` before any look-up in it.
#[inline(always)]
pub(crate) fn version_of_pods(config: &Config) -> u32 {
    // SAFETY: a field of a live map value. Volatile: it may change at any time, and is read once.
    unsafe { (&raw const config.pods_version).read_volatile() }
}

/// The flow of the packet, if one like it was delivered since `pw_pods` changed last.
#[inline(always)]
pub(crate) fn remembered(packet: &Packet, key: &FlowKey) -> Option<&'static Flow> {
    // SAFETY: see `place`; all fields are integers.
    let flow = unsafe { &*place(key)? };
    (flow.key == *key && packet.ordinary()).then_some(flow)
}

/// Keeps the processor from looking `pw_pods` up before it reads the version: what it found then would
/// be remembered under a version that it is older than.
#[inline(always)]
pub(crate) fn look_up_from_here(key: &FlowKey) {
    if let Some(flow) = place(key) {
        // SAFETY: see `place`; an aligned word that is only ever zero. An atomic operation that returns
        // the old value is a full barrier (Documentation/atomic_t.txt of Linux); `core` has none for BPF.
        unsafe {
            asm!(
                "{zero} = atomic_fetch_or((u64 *)({word} + 0), {zero})",
                word = in(reg) &raw mut (*flow).reserved,
                zero = inout(reg) 0_u64 => _,
            );
        }
    }
}

/// Remembers where the packets of a flow go.
#[inline(always)]
pub(crate) fn remember(key: &FlowKey, pod: &PodEntry) {
    if let Some(flow) = place(key) {
        let (ifindex, mac, gateway_mac) = (pod.ifindex, pod.mac, pod.gateway_mac);
        // SAFETY: see `place`.
        unsafe { *flow = Flow { key: *key, ifindex, mac, gateway_mac, reserved: 0 } };
    }
}

/// Where this processor remembers the flow, with whatever is there now.
///
/// Nobody else uses it meanwhile: it is this processor's, and programs of TC run with bottom halves off,
/// so none interrupts another.
#[inline(always)]
fn place(key: &FlowKey) -> Option<*mut Flow> {
    let flows = FLOWS.get_ptr_mut(0)?.cast::<Flow>();
    // SAFETY: a slot is below the number of flows.
    Some(unsafe { flows.add(key.slot()) })
}
