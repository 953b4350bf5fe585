//! Where a thread runs.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread, and what it starts from now on, on the first processor.
///
/// # Errors
/// When the machine keeps that one for others.
pub fn stay() -> Result<()> {
    let mut first = CpuSet::new();
    first.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &first).context("choose a processor")
}
