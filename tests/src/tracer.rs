//! Kills programs with SIGKILL in front of one of their system calls.
//!
//! `strace --inject` counts the calls of each thread and of each name on their own, so that most calls of
//! a program with threads cannot be told to it. Here the calls of all threads have one row of numbers.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc::PTRACE_SYSCALL_INFO_ENTRY;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
pub use syscalls::Sysno;

/// In front of which call a program is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The one with this number, from 1 on.
    Number(usize),
    /// The first of this kind.
    First(Sysno),
    /// None.
    Never,
}

/// What a program did.
#[derive(Debug)]
pub struct Trace {
    /// Its calls, in the order in which they began. The last of a program that was killed did not happen.
    pub calls: Vec<Sysno>,
    /// Whether it was killed; else it ended by itself.
    pub is_killed: bool,
    /// Its standard output.
    pub stdout: String,
}

impl Trace {
    /// Where it was killed, for messages.
    pub fn end(&self) -> String {
        let names: Vec<&str> = self.calls.iter().rev().take(4).rev().map(Sysno::name).collect();
        format!("killed at call {}: {}", self.calls.len(), names.join(", "))
    }
}

/// Runs a program with an input, and kills it. The programs that it starts are not touched.
///
/// # Errors
/// When it cannot be started or traced.
pub fn run(command: &mut Command, input: &str, kill_at: At) -> Result<Trace> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    // The tracer is the thread that starts the program, and waits for nothing but what it traces.
    let (child, traced) =
        thread::scope(|scope| scope.spawn(|| run_here(command, input, kill_at)).join())
            .expect("the tracer does not panic")?;
    let output = child.wait_with_output()?;
    let (calls, is_killed) = traced?;
    Ok(Trace { calls, is_killed, stdout: String::from_utf8_lossy(&output.stdout).into_owned() })
}

type Traced = Result<(Vec<Sysno>, bool)>;

/// Leaves the end of the child to its parent, which is the whole process.
fn run_here(command: &mut Command, input: &str, kill_at: At) -> Result<(Child, Traced)> {
    let mut child = command.spawn().context("start a program to trace")?;
    let traced = Pid::from_raw(child.id().try_into()?);
    if let Some(mut stdin) = child.stdin.take() {
        // Smaller than a pipe: it need not read yet.
        stdin.write_all(input.as_bytes())?;
    }
    let traced = follow_child(traced, kill_at);
    Ok((child, traced))
}

fn follow_child(process: Pid, kill_at: At) -> Traced {
    waitpid(process, None)?;
    ptrace::setoptions(process, options() | Options::PTRACE_O_EXITKILL)?;
    ptrace::syscall(process, None)?;
    let mut tracer = Tracer { process, calls: Vec::new(), from: None, kill_at };
    let is_killed = tracer.follow(|| false)?;
    Ok((tracer.calls, is_killed))
}

/// Follows a running process and kills it; its calls are counted from the first of the kind `from` on. Says
/// `ready` when it watches, and ends without a kill at the first call behind `enough`.
///
/// # Errors
/// When it cannot be traced.
pub fn follow(
    process: u32,
    from: Sysno,
    kill_at: At,
    ready: impl FnOnce() + Send,
    enough: &AtomicBool,
) -> Result<Trace> {
    // The end of the tracing thread lets the process go.
    thread::scope(|scope| scope.spawn(|| follow_here(process, from, kill_at, ready, enough)).join())
        .expect("the tracer does not panic")
}

fn follow_here(
    process: u32,
    from: Sysno,
    kill_at: At,
    ready: impl FnOnce(),
    enough: &AtomicBool,
) -> Result<Trace> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread: i32 = thread?.file_name().to_string_lossy().parse()?;
        let thread = Pid::from_raw(thread);
        match ptrace::seize(thread, options()) {
            Ok(()) => ptrace::interrupt(thread)?,
            // It ended meanwhile.
            Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("trace the agent"),
        }
    }
    let process = Pid::from_raw(process.try_into()?);
    let mut tracer = Tracer { process, calls: Vec::new(), from: Some(from), kill_at };
    ready();
    let is_killed = tracer.follow(|| enough.load(Ordering::Acquire))?;
    Ok(Trace { calls: tracer.calls, is_killed, stdout: String::new() })
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE
}

struct Tracer {
    process: Pid,
    calls: Vec<Sysno>,
    /// Calls before the first of this kind do not count.
    from: Option<Sysno>,
    kill_at: At,
}

impl Tracer {
    /// Until the process has ended, or it is enough; true if it was killed.
    fn follow(&mut self, is_enough: impl Fn() -> bool) -> Result<bool> {
        loop {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let look = WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED;
            let seen = waitid(Id::All, flags | look)?;
            if let WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) = seen
                && thread == self.process
            {
                return Ok(false);
            }
            let (thread, signal) = match waitpid(seen.pid(), Some(flags))? {
                WaitStatus::PtraceSyscall(thread) => {
                    if self.is_at_its_end(thread)? {
                        kill(self.process, Signal::SIGKILL)?;
                        return Ok(true);
                    }
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..)
                | WaitStatus::Stopped(thread, Signal::SIGSTOP | Signal::SIGTRAP) => (thread, None),
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => continue,
            };
            if is_enough() {
                return Ok(false);
            }
            match ptrace::syscall(thread, signal) {
                // It was killed meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context("let a program go on"),
            }
        }
    }

    /// Counts the call that a thread is about to make, if it is at the beginning of one.
    fn is_at_its_end(&mut self, thread: Pid) -> Result<bool> {
        let info = match ptrace::syscall_info(thread) {
            Ok(info) => info,
            Err(Errno::ESRCH) => return Ok(false),
            Err(errno) => return Err(errno).context("ask for a system call"),
        };
        if info.op != PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(false);
        }
        // SAFETY: the kernel has filled in this variant, as `op` says.
        let number = unsafe { info.u.entry.nr };
        let call = usize::try_from(number).ok().and_then(Sysno::new).context("an unknown call")?;
        if self.from.is_some_and(|from| from == call) {
            self.from = None;
        }
        if self.from.is_none() {
            self.calls.push(call);
        }
        Ok(self.from.is_none()
            && match self.kill_at {
                At::Number(number) => self.calls.len() == number,
                At::First(kind) => call == kind,
                At::Never => false,
            })
    }
}
