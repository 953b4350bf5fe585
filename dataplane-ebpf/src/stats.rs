//! The counters.

use dataplane_core::abi::Counter;

use crate::maps::STATS;

/// Counts a packet of this length, in bytes, once.
#[inline(always)]
pub(crate) fn count(length: u32, counter: Counter) {
    if let Some(stats) = STATS.get_ptr_mut(counter.number()) {
        // SAFETY: the slot belongs to this processor, and a TC program is not interrupted by another
        // one that counts on it: both run with bottom halves off.
        unsafe {
            (*stats).packets = (*stats).packets.wrapping_add(1);
            (*stats).bytes = (*stats).bytes.wrapping_add(u64::from(length));
        }
    }
}
