//! The process that waits for the one that works, so that it can remove everything whatever happens.
//!
//! A worker that was killed makes nothing any more: only then is it safe to remove what it made.

use std::process::{Child, Command};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::clean::{self, Which};
use crate::namespace::end_with_caller;

/// Runs this program again as the worker, with the same arguments and `--worker`; returns its exit code.
///
/// # Errors
/// When it cannot be started, or what it made cannot be removed.
pub fn run() -> Result<u8> {
    let signals = waited_for();
    signals.thread_block().context("block signals")?;

    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(std::env::args_os().skip(1)).arg("--worker");
    end_with_caller(&mut command);
    let mut child = command.spawn().context("start the worker")?;
    let pid = child.id();
    let (code, was_interrupted) = wait(&mut child, &signals)?;
    if was_interrupted || code != 0 {
        let which = if was_interrupted { Which::Of(pid) } else { Which::Dead };
        for name in clean::clean(which)? {
            eprintln!("removed {name}");
        }
    }
    Ok(code)
}

/// What the worker does: it begins with the signals blocked that the other waits for, and programs that it starts would
/// never get theirs.
///
/// # Errors
/// Those of `work`.
pub fn as_worker(work: impl FnOnce() -> Result<u8>) -> Result<u8> {
    waited_for().thread_unblock().context("unblock signals")?;
    work()
}

fn waited_for() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect()
}

fn wait(child: &mut Child, signals: &SigSet) -> Result<(u8, bool)> {
    loop {
        let signal = signals.wait().context("wait for signals")?;
        if signal == Signal::SIGCHLD {
            if let Some(status) = child.try_wait()? {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return Ok((code.unwrap_or(1), status.code().is_none()));
            }
            continue;
        }
        eprintln!("\n{signal}: removing everything");
        child.kill()?;
        child.wait()?;
        let number = u8::try_from(signal as i32).unwrap_or(0);
        return Ok((128 + number, true));
    }
}
