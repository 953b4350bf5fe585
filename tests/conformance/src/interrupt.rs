//! SIGINT and SIGTERM: the run ends at the next step, and cleans up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes over both signals. Call it before other threads are started: they inherit the mask. Programs
/// that are run do not, the standard library resets it.
///
/// # Errors
/// When the kernel refuses.
pub fn listen() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block SIGINT and SIGTERM")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("cni-conformance: interrupted, cleaning up");
            REQUESTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Whether somebody wants the run to end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
