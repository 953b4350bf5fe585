//! The maps; their layouts and sizes are in dataplane-core.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use dataplane_core::abi::counter::COUNTERS_MAX;
use dataplane_core::abi::names::{self, EVENTS_BYTES, NODES_MAX, PODS_MAX};
use dataplane_core::abi::{ABI_VERSION, Addr, Config, Near, NodeEntry, PodEntry, Stats};
use dataplane_core::ip::Ip;
use dataplane_core::near::place;

use crate::stack::Shifted;

/// Entries are made one at a time as pods come and go: memory follows their number.
const NO_PREALLOC: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;

#[btf_map(name = "pw_pods")]
static PODS: HashMap<Addr, PodEntry, PODS_MAX, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "pw_near")]
static NEAR: Array<Near, { names::NEAR }> = Array::new();
#[btf_map(name = "pw_nodes")]
static NODES: LpmTrie<Addr, NodeEntry, NODES_MAX> = LpmTrie::new();
#[btf_map(name = "pw_config")]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map(name = "pw_stats")]
pub(crate) static STATS: PerCpuArray<Stats, { COUNTERS_MAX as usize }> = PerCpuArray::new();
#[btf_map(name = "pw_events")]
pub(crate) static EVENTS: RingBuf<(), EVENTS_BYTES> = RingBuf::new();

/// The local pod, or the node itself, that has the address.
#[inline(always)]
pub(crate) fn pod(config: &Config, address: &Ip) -> Option<&'static PodEntry> {
    // Before the array: an address that gets its place meanwhile is in the hash.
    // SAFETY: a field of a live map value. Volatile: it may change at any time, and is read here.
    let flags = unsafe { (&raw const config.flags).read_volatile() };
    match near(address) {
        Some(entry) => Some(entry),
        None if flags & Config::ALL_NEAR != 0 => None,
        // SAFETY: an entry that the agent removes may be given to another pod at once, while it is read here
        // (`bpf_mem_alloc`), but its memory stays that of an entry until the program ends (RCU); all its
        // fields are integers, so any mix is a valid value. At worst one packet meets the other pod.
        None => unsafe { PODS.get(key(address)) },
    }
}

/// The same, if the address has a place of its own: a tenth of what a look-up in a hash takes. An entry that changes
/// meanwhile can be of two pods, as in `pod`. An empty place has no kind: it is not that of the unspecified address.
#[inline(always)]
pub(crate) fn near(address: &Ip) -> Option<&'static PodEntry> {
    let near = NEAR.get(place(address) as u32)?;
    (Ip::from(&near.address) == *address && near.entry.kind != PodEntry::NOBODY)
        .then_some(&near.entry)
}

/// What the longest prefix around the address says.
#[inline(always)]
pub(crate) fn node(address: &Ip) -> Option<&'static NodeEntry> {
    #[repr(C, packed(4))]
    struct Prefix {
        length: u32,
        address: [u64; 2],
    }
    let prefix = Shifted::new(Prefix { length: 128, address: address.0 });
    // SAFETY: both are 20 bytes: the length, then the address; the packed `Key` asks for no alignment.
    let key = unsafe { &*(&raw const prefix.value).cast::<Key<Addr>>() };
    NODES.get(key)
}

/// The node's configuration; none until an agent of this version has written it.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0).filter(|config| config.abi_version == ABI_VERSION)
}

/// The address as the maps have it.
#[inline(always)]
fn key(address: &Ip) -> &Addr {
    // SAFETY: both are 16 bytes of integers with alignment 4 (asserted in dataplane-core), and the
    // reference lives as long as the one it comes from.
    unsafe { &*core::ptr::from_ref(address).cast() }
}
