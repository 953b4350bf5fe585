//! The one place that lets time pass: waiting until something can be seen.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Pause between two looks.
const TICK: Duration = Duration::from_millis(10);

/// Looks again and again until the check succeeds, and returns what it found.
///
/// # Errors
/// With what the last look found wrong, when the time is up.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut check: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        match check() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("waited {timeout:?} for {what}"));
            }
            Err(_) => thread::sleep(TICK),
        }
    }
}

/// Calls `step` once per `interval` with 0, 1, 2 and so on, until it says that it was the last. What was
/// late is caught up on.
pub fn pace_while(interval: Duration, mut step: impl FnMut(u32) -> bool) {
    let start = Instant::now();
    for number in 0.. {
        let due = start + interval * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if !step(number) {
            return;
        }
    }
}
