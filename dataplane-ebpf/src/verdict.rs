//! From a decision to what the kernel does.

use dataplane_core::abi::{Config, Counter, DropReason, Path};
use dataplane_core::decide::Verdict;
use dataplane_core::packet::{Bytes as _, Headers};

use crate::debug::debug_verdict;
use crate::deliver::{self, Door};
use crate::drop::drop;
use crate::packet::Packet;
use crate::stats::count;

/// `TCX_NEXT`: the next program of the hook, after the last one the stack (kernel 6.6, linux/bpf.h).
const TCX_NEXT: i32 = -1;

/// The programs, by position in `dataplane_core::abi::names::PROGRAMS`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    FromPod = 0,
    ToPod = 1,
    FromNet = 2,
    FromTunnel = 3,
    FromHost = 4,
}

/// Where a packet is and what is known of it.
pub(crate) struct Way<'a> {
    pub(crate) packet: &'a Packet,
    pub(crate) program: Program,
    pub(crate) config: &'a Config,
    pub(crate) headers: &'a Headers,
}

/// Carries out the decision; the verdict for the kernel.
#[inline(always)]
pub(crate) fn conclude(way: &Way<'_>, verdict: Verdict<'_>) -> i32 {
    let packet = way.packet;
    match verdict {
        Verdict::Pod(pod, path) => {
            let door = match way.program {
                Program::FromHost => Door::Host,
                Program::FromPod | Program::ToPod | Program::FromNet | Program::FromTunnel => {
                    Door::Peer
                }
            };
            deliver::to_pod(way, pod, door, path)
        }
        Verdict::Direct(node, path) => deliver::direct(way, node, path),
        Verdict::Tunnel(node, path) => deliver::tunnel(way, node, path),
        Verdict::Host(path) => deliver::to_host(way, path),
        Verdict::Pass(path) => pass(packet, way.program, path),
        Verdict::Drop(reason) => refuse(packet, way.program, Some(way.headers), reason),
    }
}

/// Leaves the packet to the next program and the stack.
#[inline(always)]
pub(crate) fn pass(packet: &Packet, program: Program, path: Path) -> i32 {
    debug_verdict!(packet, program, "pass", path as u32);
    let _ = program;
    count(packet.length(), Counter::Path(path));
    TCX_NEXT
}

/// Drops the packet.
#[inline(always)]
pub(crate) fn refuse(
    packet: &Packet,
    program: Program,
    headers: Option<&Headers>,
    reason: DropReason,
) -> i32 {
    debug_verdict!(packet, program, "drop", reason as u32);
    drop(packet, program, headers, reason)
}
