//! One call of a plugin, as a runtime makes it, and what it took.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Where the distribution has the plugins of the CNI project.
pub(super) const PLUGINS: &str = "/usr/lib/cni";

/// What a call took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) wall: Duration,
    /// Of the process and of those that it waited for. True only where nothing else runs beside it.
    pub(super) cpu: Duration,
}

/// A plugin's command; it runs in the namespace of the thread that starts it.
pub(super) fn command(plugin: &Path, verb: &str, container_id: &str, netns: &Path) -> Command {
    let mut command = Command::new(plugin);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", container_id);
    command.env("CNI_NETNS", netns).env("CNI_IFNAME", "eth0").env("CNI_PATH", PLUGINS);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it from start to end, and returns what it printed and what it took.
///
/// # Errors
/// When it fails, with what it printed.
pub(super) fn run(command: &mut Command, input: &str) -> Result<(String, Spent)> {
    let cpu_before = cpu_of_children()?;
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let wall = start.elapsed();
    let cpu = cpu_of_children()?.saturating_sub(cpu_before);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {text}{stderr}", output.status);
    }
    Ok((text, Spent { wall, cpu }))
}

fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for used processor time")?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let whole = u64::try_from(time.tv_sec()).unwrap_or(0);
    Duration::from_secs(whole) + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
}

/// Milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
