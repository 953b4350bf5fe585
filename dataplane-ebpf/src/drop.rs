//! The one way to drop a packet: counted under its reason and reported.

use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, TC_ACT_SHOT};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use dataplane_core::abi::{Counter, DropReason, Event};
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Bytes as _, Headers};

use crate::maps::EVENTS;
use crate::packet::Packet;
use crate::stats::count;
use crate::verdict::Program;

/// Counts and reports the drop; the verdict for the kernel.
#[inline(never)]
pub(crate) fn drop(
    packet: &Packet,
    program: Program,
    headers: Option<&Headers>,
    reason: DropReason,
) -> i32 {
    count(packet.length(), Counter::Drop(reason));
    if let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) {
        let unspecified = (Ip::UNSPECIFIED, Ip::UNSPECIFIED, 0);
        let (source, destination, protocol) =
            headers.map_or(unspecified, |h| (h.source, h.destination, h.protocol));
        let event = record.as_mut_ptr();
        // SAFETY: the record is an Event, aligned to 8, and ours until it is submitted; each field is
        // written once, the addresses as words, which have the layout of an Addr (asserted in
        // dataplane-core) and lie at multiples of 8.
        unsafe {
            (&raw mut (*event).time_ns).write(bpf_ktime_get_ns());
            (&raw mut (*event).source).cast::<Ip>().write(source);
            (&raw mut (*event).destination).cast::<Ip>().write(destination);
            (&raw mut (*event).reason).write(reason as u32);
            (&raw mut (*event).ifindex).write(packet.ifindex());
            (&raw mut (*event).length).write(packet.length());
            (&raw mut (*event).protocol).write(protocol);
            (&raw mut (*event).program).write(program as u8);
            (&raw mut (*event).reserved).write(0);
        }
        // A reader polls: under a flood of drops a wake-up each would cost more than the drop.
        record.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    TC_ACT_SHOT
}
