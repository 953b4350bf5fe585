//! Network namespaces of a run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::process;

const DIRECTORY: &str = "/run/netns";

/// A network namespace.
#[derive(Debug)]
pub enum Namespace {
    /// That in which the kit was started.
    Current,
    /// One of its own, removed when this is dropped.
    Own(String),
}

impl Namespace {
    /// Makes one with a unique name: `cnic-<process>-<number>`.
    ///
    /// # Errors
    /// Without the rights.
    pub fn new() -> Result<Self> {
        let namespace = Self::Own(unique());
        namespace.ip_netns("add")?;
        // Nobody else is there to have the same address, and a plugin may wait for a second per address.
        namespace.enter(|| {
            for which in ["all", "default"] {
                let file = format!("/proc/sys/net/ipv6/conf/{which}/accept_dad");
                // A kernel may have no IPv6.
                let _ = std::fs::write(file, "0");
            }
        })?;
        Ok(namespace)
    }

    /// Its path, as `CNI_NETNS` wants it.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Current => "/proc/self/ns/net".into(),
            Self::Own(name) => Path::new(DIRECTORY).join(name),
        }
    }

    /// Removes it now, with all that is in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn delete(&self) -> Result<()> {
        self.ip_netns("delete")
    }

    /// Runs `ip` in it.
    ///
    /// # Errors
    /// When that fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ip");
        if let Self::Own(name) = self {
            command.args(["-n", name]);
        }
        process::checked(command.args(arguments))
    }

    /// Does something in a thread that is in it.
    ///
    /// # Errors
    /// When it cannot be entered.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if matches!(self, Self::Current) {
            return Ok(work());
        }
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ip_netns(&self, verb: &str) -> Result<()> {
        let Self::Own(name) = self else { return Ok(()) };
        process::checked(Command::new("ip").args(["netns", verb, name])).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if matches!(self, Self::Own(_)) && self.path().exists() {
            let _ = self.delete();
        }
    }
}

/// A name that no other run has.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("cnic-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the namespaces of runs whose process has ended without doing so (it was killed).
///
/// # Errors
/// When one cannot be removed.
pub fn remove_of_dead() -> Result<()> {
    let entries = std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    for name in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let Some(pid) = name.strip_prefix("cnic-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            ensure!(pid.parse::<u32>().is_ok(), "{name} is none of ours");
            let namespace = Namespace::Own(name);
            // Another run may be at it, too.
            namespace
                .delete()
                .or_else(|error| if namespace.path().exists() { Err(error) } else { Ok(()) })?;
        }
    }
    Ok(())
}
