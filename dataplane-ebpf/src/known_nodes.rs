//! What this processor remembers of `pw_nodes` (`dataplane_core::remembered`).

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use dataplane_core::abi::names;
use dataplane_core::abi::{Config, KnownNode, NodeEntry};
use dataplane_core::ip::Ip;

use crate::maps;

/// One value for all addresses, so that the pointer to it
/// stays in the processor's cache.
#[btf_map(name = "pw_known_nodes")]
static KNOWN_NODES: PerCpuArray<[KnownNode; names::KNOWN_NODES], 1> = PerCpuArray::new();

/// What the longest prefix around the address says: as for the packet before with this address, or `pw_nodes` is asked.
/// For one address of each packet: a second could take the place of the first.
#[inline(always)]
pub(crate) fn known_node(config: &Config, address: &Ip) -> Option<&'static NodeEntry> {
    let version = version_of_maps(config);
    let Some(place) = place_in(&KNOWN_NODES, KnownNode::slot(address)) else {
        return maps::node(address);
    };
    // SAFETY: see `place_in`; all fields are integers, and nothing else refers to them.
    let known = unsafe { &mut *place };
    if !known.is_of(address, version) {
        look_up_from_here(known);
        let node = maps::node(address);
        known.set(address, version, node);
        return node;
    }
    known.node()
}

/// The version of the maps before any look-up in them.
#[inline(always)]
fn version_of_maps(config: &Config) -> u32 {
    // SAFETY: a field of a live map value. Volatile: it may change at any time, and is read once.
    unsafe { (&raw const config.maps_version).read_volatile() }
}

/// Keeps the processor from looking the maps up before it reads the version: what it found then would
/// be remembered under a version that it is older than.
#[inline(always)]
fn look_up_from_here(known: &mut KnownNode) {
    const { assert!(offset_of!(KnownNode, maps_version) % size_of::<u64>() == 0) };
    // SAFETY: see `place_in`; an aligned word, of two fields, that stays as it is. An atomic operation that returns
    // the old value is a full barrier (Documentation/atomic_t.txt of Linux); `core` has none for BPF.
    unsafe {
        asm!(
            "{zero} = atomic_fetch_or((u64 *)({word} + 0), {zero})",
            word = in(reg) &raw mut known.maps_version,
            zero = inout(reg) 0_u64 => _,
        );
    }
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
