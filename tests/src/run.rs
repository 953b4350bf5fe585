//! A run: the prefix of every name that it makes, and its directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

/// Directory of bpffs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// Directory of the runs' directories.
pub(crate) const RUN: &str = "/run";
/// File in a run's directory: when its process began.
pub(crate) const OWNER_FILE: &str = "owner";

/// Who makes a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A test.
    Test,
    /// The demo.
    Demo,
    /// A benchmark.
    Bench,
    /// A Kubernetes cluster.
    Kubernetes,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Test, Self::Demo, Self::Bench, Self::Kubernetes];

    /// First part of the names.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Test => "pwt-",
            Self::Demo => "pwd-",
            Self::Bench => "pwb-",
            Self::Kubernetes => "pwk-",
        }
    }
}

/// One cluster's names. Removes its directories when dropped.
#[derive(Debug)]
pub struct Run {
    name: String,
    keep: bool,
}

impl Run {
    /// A name that nobody else has, with the process id in it, and its directories.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn new(kind: Kind) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", kind.prefix(), std::process::id());
        let run = Self { name, keep: false };
        let start = start_of(std::process::id()).context("read when this process began")?;
        for directory in [run.directory(), run.bpffs()] {
            fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
        fs::write(run.directory().join(OWNER_FILE), start)?;
        Ok(run)
    }

    /// The prefix of all names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Directory for state, sockets and logs.
    pub fn directory(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    /// Directory for pins.
    pub fn bpffs(&self) -> PathBuf {
        Path::new(BPFFS).join(&self.name)
    }

    /// Leaves everything where it is.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Whether everything stays.
    pub fn is_kept(&self) -> bool {
        self.keep
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let _ = fs::remove_dir_all(self.bpffs());
        if std::thread::panicking() && std::env::var_os("PODWIRE_KEEP_LOGS").is_some() {
            return;
        }
        let _ = fs::remove_dir_all(self.directory());
    }
}

/// When a process began, in the kernel's ticks; none if it has ended.
pub fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the command, in parentheses, may hold anything. The 22nd field is the start.
    let (_, fields) = stat.rsplit_once(") ")?;
    // One that has ended and is not yet waited for makes nothing any more.
    if fields.starts_with(['Z', 'X']) {
        return None;
    }
    fields.split(' ').nth(19).map(str::to_owned)
}
