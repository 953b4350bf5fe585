//! The time that a delegated plugin has, kept by a process of its own: it is kept, too, when the plugin that called
//! is killed.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Exit status of a watcher that had to kill.
const LATE: i32 = 1;

/// What the delegated plugin and all that it starts hold open as long as they run.
pub(super) struct Life {
    /// Hangs up when nobody runs any more.
    ended: PipeReader,
    held: PipeWriter,
}

impl Life {
    /// Programs that are started from now on hold it.
    pub(super) fn new() -> io::Result<Self> {
        let (ended, held) = io::pipe()?;
        fcntl(&held, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self { ended, held })
    }

    /// Watches a group of processes that holds it.
    pub(super) fn watch(self, group: Pid, limit: Duration) -> io::Result<Watch> {
        let Self { ended, held } = self;
        drop(held);
        let (heard, told) = io::pipe()?;
        // SAFETY: the child makes system calls alone, and takes no lock and no memory.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let late = alone_with(&heard, &ended) && is_late(&heard, &ended, limit);
                // That it has ended just now is no error.
                let killed = late && killpg(group, Signal::SIGKILL).is_ok();
                // SAFETY: ends the process without running what the caller has left to do.
                unsafe { libc::_exit(if killed { LATE } else { 0 }) }
            }
            ForkResult::Parent { child } => Ok(Watch { child, told }),
        }
    }
}

/// A process that watches.
pub(super) struct Watch {
    child: Pid,
    told: PipeWriter,
}

impl Watch {
    /// Tells it that the plugin has answered; whether it had to kill the plugin.
    pub(super) fn end(mut self) -> io::Result<bool> {
        // It may have ended.
        let _ = self.told.write(&[0]);
        drop(self.told);
        loop {
            match waitpid(self.child, None) {
                Ok(status) => return Ok(status == WaitStatus::Exited(self.child, LATE)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Lets go of everything else, above all of the attachment's lock.
fn alone_with(heard: &PipeReader, ended: &PipeReader) -> bool {
    let (a, b) = (heard.as_raw_fd(), ended.as_raw_fd());
    let (low, high) = (a.min(b).unsigned_abs(), a.max(b).unsigned_abs());
    let ranges = [0..low, low + 1..high, high + 1..u32::MAX];
    ranges.into_iter().filter(|range| !range.is_empty()).all(|range| {
        // SAFETY: closes descriptors that nothing in this process uses any more.
        unsafe { libc::syscall(libc::SYS_close_range, range.start, range.end - 1, 0) == 0 }
    })
}

/// Waits until the caller is content, or it is gone and so is the plugin; or until the time is up.
fn is_late(heard: &PipeReader, ended: &PipeReader, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut byte = [0_u8];
    if !wait(heard, deadline) {
        return true;
    }
    let was_told = nix::unistd::read(heard, &mut byte) == Ok(1);
    !was_told && !wait(ended, deadline)
}

/// Waits for bytes or the end of them; no if there are none in time.
fn wait(pipe: &PipeReader, deadline: Instant) -> bool {
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if rest.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}
