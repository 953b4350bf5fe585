//! Programs that are run, with a limit of time.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// How a program ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Well(Output),
    /// It was killed, with all that it had started, as its time was over.
    Killed,
}

/// Runs a program in a namespace.
///
/// # Errors
/// When it cannot be started.
pub fn run(
    command: &mut Command,
    input: &[u8],
    inside: &Namespace,
    limit: Duration,
) -> Result<Ended> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: a Ctrl-C at the terminal lets the call end, and a hanging one is killed as a whole.
    command.process_group(0);
    let name = command.get_program().to_string_lossy().into_owned();
    let child = inside.enter(|| command.spawn())?.with_context(|| format!("start {name}"))?;
    wait(child, input, limit).with_context(|| format!("run {name}"))
}

fn wait(mut child: Child, input: &[u8], limit: Duration) -> Result<Ended> {
    let group = Pid::from_raw(child.id().try_into()?);
    let stdin = child.stdin.take();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // It may end without reading.
                let _ = stdin.write_all(input);
            }
        });
        scope.spawn(move || {
            let _ = sender.send(child.wait_with_output());
        });
        match receiver.recv_timeout(limit) {
            Ok(output) => Ok(Ended::Well(output?)),
            Err(RecvTimeoutError::Timeout) => {
                killpg(group, Signal::SIGKILL).context("kill it")?;
                Ok(Ended::Killed)
            }
            Err(RecvTimeoutError::Disconnected) => bail!("its end was not seen"),
        }
    })
}

/// Runs a tool and returns its standard output.
///
/// # Errors
/// When it fails, with what it printed.
pub fn checked(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(std::ffi::OsStr::to_string_lossy).collect();
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}: {stderr}", words.join(" "), describe(output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An exit status in words.
pub fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => format!("{status}"),
    }
}
