//! What this processor remembers of `pw_pods` and `pw_nodes`: flows between pods of this node, and for all others
//! the look-ups (`dataplane_core::flow`).

use core::arch::asm;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use dataplane_core::abi::names;
use dataplane_core::abi::{Config, Flow, FlowKey, LookUp, PodEntry};
use dataplane_core::decide::Found;
use dataplane_core::packet::Headers;

use crate::packet::Packet;

/// One value for all flows, so that the pointer to it
/// stays in the processor's cache.
#[btf_map(name = "pw_flows")]
static FLOWS: PerCpuArray<[Flow; names::FLOWS], 1> = PerCpuArray::new();
#[btf_map(name = "pw_look_ups")]
static LOOK_UPS: PerCpuArray<[LookUp; names::LOOK_UPS], 1> = PerCpuArray::new();

/// The version of the maps before any look-up in them.
#[inline(always)]
pub(crate) fn version_of_maps(config: &Config) -> u32 {
    // SAFETY: a field of a live map value. Volatile: it may change at any time, and is read once.
    unsafe { (&raw const config.maps_version).read_volatile() }
}

/// What the maps say of a packet's addresses: as for the packet before with the same, or `look_up` asks them.
#[inline(always)]
pub(crate) fn found(
    packet: &Packet,
    config: &Config,
    headers: &Headers,
    look_up: impl FnOnce() -> Found<'static>,
) -> Found<'static> {
    let key = FlowKey::of_look_ups(headers, packet.ifindex(), version_of_maps(config));
    let Some(place) = place_of_look_ups(&key) else { return look_up() };
    // SAFETY: see `place_in`; all fields are integers, and nothing else refers to them: what is found lies in the
    // other maps.
    let known = unsafe { &mut *place };
    if known.key != key {
        look_up_from_here();
        let found = look_up();
        known.set(&key, &found);
        return found;
    }
    known.found()
}

/// The flow of the packet, if one like it was delivered since the maps changed last.
#[inline(always)]
pub(crate) fn remembered(packet: &Packet, key: &FlowKey) -> Option<&'static Flow> {
    // SAFETY: see `place_in`; all fields are integers.
    let flow = unsafe { &*place(key)? };
    (flow.key == *key && packet.ordinary()).then_some(flow)
}

/// Keeps the processor from looking the maps up before it reads the version: what it found then would
/// be remembered under a version that it is older than.
#[inline(always)]
fn look_up_from_here() {
    if let Some(flow) = FLOWS.get_ptr_mut(0).map(<*mut _>::cast::<Flow>) {
        // SAFETY: see `place_in`; an aligned word that is only ever zero. An atomic operation that returns
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
        // SAFETY: see `place_in`.
        unsafe { *flow = Flow { key: *key, ifindex, mac, gateway_mac, reserved: 0 } };
    }
}

/// Where this processor remembers the flow, with whatever is there now.
#[inline(always)]
fn place(key: &FlowKey) -> Option<*mut Flow> {
    place_in(&FLOWS, key.slot())
}

/// Likewise of look-ups.
#[inline(always)]
fn place_of_look_ups(key: &FlowKey) -> Option<*mut LookUp> {
    place_in(&LOOK_UPS, key.slot_of_look_ups())
}

/// One of the places of this processor, of which there is a power of two.
///
/// Nobody else uses it meanwhile: it is this processor's, and programs of TC run with bottom halves off,
/// so none interrupts another.
#[inline(always)]
pub(crate) fn place_in<T, const PLACES: usize>(
    map: &PerCpuArray<[T; PLACES], 1>,
    slot: usize,
) -> Option<*mut T> {
    let places = map.get_ptr_mut(0)?.cast::<T>();
    // SAFETY: what is left of the slot is below the number of places.
    Some(unsafe { places.add(slot & PLACES.wrapping_sub(1)) })
}
