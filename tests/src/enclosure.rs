//! Processes and mounts apart from the machine's, in the network of a namespace. Its first process ends
//! them all when it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{self, Process};
use crate::namespace::Namespace;
use crate::wait::wait_until;

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Namespaces of processes, mounts and the host's name.
#[derive(Debug)]
pub struct Enclosure {
    holder: Process,
    first: u32,
}

impl Enclosure {
    /// Makes one. The script furnishes it, makes the file `ready`, which it has as its first argument, and
    /// must not end: it is the first process. The other arguments follow.
    ///
    /// # Errors
    /// When the rights are missing, or the script fails.
    pub fn new(
        namespace: &Namespace,
        ends_with_caller: bool,
        script: &str,
        ready: &Path,
        arguments: &[&OsStr],
    ) -> Result<Self> {
        let mut unshare = namespace.service("unshare", ends_with_caller);
        unshare.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["--propagation", "private", "sh", "-c", script, "sh"]);
        unshare.stdin(Stdio::null()).stdout(Stdio::null());
        if !ends_with_caller {
            // Who reads what the caller prints would wait for the end of the enclosure.
            unshare.stderr(Stdio::null());
        }
        let child = unshare.arg(ready).args(arguments).spawn().context("nsenter")?;
        let mut holder = Process::new(child);
        wait_until("the room", START_TIME_MAX, || {
            ensure!(ready.exists() || holder.has_ended(), "it is not furnished");
            Ok(())
        })?;
        ensure!(ready.exists(), "the first process of {} has ended", namespace.name());
        let first = child_of(holder.id().context("unshare")?)?;
        Ok(Self { holder, first })
    }

    /// A program in it, which is ended after a minute.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = command::limited("nsenter");
        command.args(self.way_in()).arg(program);
        command
    }

    /// Starts a program in it that stays, its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: &[A],
        log: &Path,
    ) -> Result<Service> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("nsenter");
        command.args(self.way_in()).arg(program).args(arguments);
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("nsenter")?;
        Ok(Service(Process::new(child)))
    }

    /// Its mounts, as the kernel shows them.
    ///
    /// # Errors
    /// When it is gone.
    pub fn mounts(&self) -> Result<Vec<String>> {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.first))?;
        let second = |line: &str| line.split(' ').nth(1).map(str::to_owned);
        Ok(mounts.lines().filter_map(second).collect())
    }

    /// Names of the processes in it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processes(&self) -> Result<Vec<String>> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.first))?;
        let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let inside =
            all.filter(|process| fs::read_link(process.join("ns/pid")).ok() == Some(own.clone()));
        Ok(inside.filter_map(|process| fs::read_to_string(process.join("comm")).ok()).collect())
    }

    /// Its first process, as the machine numbers it.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Ends every process in it.
    pub fn kill(&mut self) {
        let _ = kill(Pid::from_raw(self.first.cast_signed()), Signal::SIGKILL);
        self.holder.kill();
    }

    /// Lets it live on.
    pub fn let_go(&mut self) {
        self.holder.let_go();
    }

    fn way_in(&self) -> [String; 6] {
        ["--target", &self.first.to_string(), "--mount", "--uts", "--pid", "--net"]
            .map(str::to_owned)
    }
}

/// A program that runs in an enclosure. It is killed when dropped.
#[derive(Debug)]
pub struct Service(Process);

impl Service {
    /// Ends it with a signal and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        let id = child_of(self.0.id().context("nsenter")?)?;
        kill(Pid::from_raw(id.cast_signed()), signal)?;
        wait_until("its end", START_TIME_MAX, || {
            ensure!(self.0.has_ended(), "process {id} runs on");
            Ok(())
        })
    }

    /// Lets it live on.
    pub fn let_go(&mut self) {
        self.0.let_go();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.has_ended()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let child = self.0.id().and_then(|id| child_of(id).ok());
        if let Some(id) = child {
            let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

/// The one child of a program that forks once and waits.
fn child_of(parent: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next();
    Ok(first.with_context(|| format!("process {parent} has no child"))?.parse()?)
}
