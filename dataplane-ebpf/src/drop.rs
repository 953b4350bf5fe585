//! The one way to drop a packet: counted under its reason and reported.

use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, TC_ACT_SHOT};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use dataplane_core::abi::{Addr, Counter, DropReason, Event};
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
    count(packet, Counter::Drop(reason));
    if let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) {
        let (source, destination, protocol) = match headers {
            Some(headers) => (headers.source.into(), headers.destination.into(), headers.protocol),
            None => (Addr::UNSPECIFIED, Addr::UNSPECIFIED, 0),
        };
        record.write(Event {
            // SAFETY: the helper has no arguments.
            time_ns: unsafe { bpf_ktime_get_ns() },
            source,
            destination,
            reason: reason as u32,
            ifindex: packet.ifindex(),
            length: packet.length(),
            protocol,
            program: program as u8,
            reserved: 0,
        });
        // A reader polls: under a flood of drops a wake-up each would cost more than the drop.
        record.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    TC_ACT_SHOT
}
