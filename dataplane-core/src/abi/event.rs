//! `pw_events`: one record per dropped packet, best effort (a full ring loses records, not packets).

use super::Addr;

/// A record of the ring buffer `pw_events`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Source address of the packet; unspecified where it has none.
    pub source: Addr,
    /// Destination address of the packet; unspecified where it has none.
    pub destination: Addr,
    /// Number of the [`DropReason`](super::DropReason).
    pub reason: u32,
    /// Interface on which the program ran.
    pub ifindex: u32,
    /// Length of the packet from its Ethernet header, in bytes.
    pub length: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the program, by position in [`PROGRAMS`](super::names::PROGRAMS).
    pub program: u8,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Event>() == 56 && align_of::<Event>() == 8);
