//! The clock.

use std::io;

/// Whether something keeps the clock right.
///
/// # Errors
/// When the kernel does not say.
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: `timex` is made of integers, for which zero is a value; no mode set means: only read.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes to `timex`, which is alive and not borrowed otherwise.
    if unsafe { libc::adjtimex(&raw mut timex) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(timex.status & libc::STA_UNSYNC == 0)
}
