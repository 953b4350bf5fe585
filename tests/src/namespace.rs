//! A network namespace with a name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command;

/// Where `ip netns` keeps names.
pub(crate) const NETNS: &str = "/run/netns";

/// A network namespace, removed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
    keep: bool,
}

impl Namespace {
    /// Makes it, with `lo` up, forwarding off, and addresses that can be used at once.
    ///
    /// # Errors
    /// When it exists or the rights are missing.
    pub fn new(name: &str, keep: bool) -> Result<Self> {
        command::run(Command::new("ip").args(["netns", "add", name]))?;
        let path = Path::new(NETNS).join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let namespace = Self(Arc::new(Inner { name: name.to_owned(), file, keep }));
        // Some of these a new namespace copies from the machine's own: the tests are the same anywhere.
        namespace.sysctls(&[
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/forwarding", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv4/ping_group_range", "0 0"),
        ])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// One of somebody else, by a file that refers to it; it stays when this is dropped.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn borrow(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(Arc::new(Inner { name: String::new(), file, keep: true })))
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its path, as `CNI_NETNS` wants it.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS).join(&self.0.name)
    }

    /// A program in it, which ends when the calling thread ends, or after a minute.
    pub fn command(&self, program: &str) -> Command {
        let mut command = command::limited(program);
        self.inside(&mut command);
        command
    }

    /// A program in it without a limit of time, with nothing in between: for who traces it.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.inside(&mut command);
        command
    }

    /// A program in it without a limit of time; it ends with the calling thread if it shall.
    pub fn service(&self, program: impl AsRef<OsStr>, ends_with_caller: bool) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        if ends_with_caller {
            end_with_caller(&mut command);
        }
        command
    }

    /// Runs a program in it, given as words, and returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let program = words.next().context("a program")?;
        command::run(self.command(program).args(words))
    }

    /// Runs `ip` in it. Several commands stand on lines of their own.
    ///
    /// # Errors
    /// When one fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", self.name(), "-batch", "-"]);
        let output = command::feed(&mut ip, lines)?;
        command::checked(&ip, &output).with_context(|| lines.to_owned()).map(drop)
    }

    /// Index and MAC of an interface in it.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn link(&self, name: &str) -> Result<(u32, [u8; 6])> {
        let links: Value = serde_json::from_str(&self.run(&format!("ip -j link show {name}"))?)?;
        let index = links[0]["ifindex"].as_u64().context("no index")?;
        let text = links[0]["address"].as_str().context("no MAC")?;
        let mac: Vec<u8> =
            text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        Ok((u32::try_from(index)?, mac.try_into().ok().context("a MAC of six bytes")?))
    }

    /// Sets files below `/proc/sys/net`.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (name, value) in values {
                let path = Path::new("/proc/sys/net").join(name);
                fs::write(&path, value).with_context(|| format!("write {}", path.display()))?;
            }
            Ok(())
        })
    }

    /// Does something in a thread that is in the namespace.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into it.
    ///
    /// # Panics
    /// Without the rights.
    pub fn join(&self) {
        setns(self.0.file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns needs root");
    }

    fn inside(&self, command: &mut Command) {
        let raw = self.0.file.as_raw_fd();
        // SAFETY: between fork and exec only system calls are made. The descriptor is that of a file
        // which lives as long as this namespace; were it closed before, setns would fail and say so.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                setns(BorrowedFd::borrow_raw(raw), CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
    }
}

/// Lets a child be killed when the thread that starts it ends.
pub fn end_with_caller(command: &mut Command) {
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.keep {
            let _ = command::output(Command::new("ip").args(["netns", "delete", &self.name]));
        }
    }
}
