//! The one place that lets time pass: the kernel removes some things a moment later.

use std::thread;
use std::time::{Duration, Instant};

use crate::stop::{Outcome, Stop};

/// Longest time for the kernel, or a plugin, to be done.
const LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const TICK: Duration = Duration::from_millis(10);

/// Looks again and again until the check passes, or it is clear that it does not.
///
/// # Errors
/// With what the last look found.
pub fn until_passes(mut look: impl FnMut() -> Outcome) -> Outcome {
    let deadline = Instant::now() + LIMIT;
    loop {
        match look() {
            Err(Stop::Failed(_)) if Instant::now() < deadline => thread::sleep(TICK),
            outcome => return outcome,
        }
    }
}
