//! One verb at a time for an attachment.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

use crate::error::{Context as _, IO, TRY_AGAIN, failure};
use crate::names::Attachment;
use crate::protocol::Failure;

/// Longest wait for another verb of the same attachment (or of one that shares the lock file).
const WAIT_MAX: Duration = Duration::from_secs(60);
const WAIT_STEP: Duration = Duration::from_millis(10);

/// Holds the attachment's lock; the kernel frees it however the process ends.
pub(crate) fn take(attachment: &Attachment, socket: &Path) -> Result<Flock<File>, Failure> {
    take_if_there(attachment, socket)?.ok_or_else(|| {
        failure(
            TRY_AGAIN,
            format!("{} is missing", attachment.lock_file(socket).display()),
            "the agent makes it when it starts: is podwire-agent running on this node, and is \
             \"socket\" in the network configuration its socket?",
        )
    })
}

/// As [`take`]; none where no agent has made the file.
pub(crate) fn take_if_there(
    attachment: &Attachment,
    socket: &Path,
) -> Result<Option<Flock<File>>, Failure> {
    let path = attachment.lock_file(socket);
    let mut file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(IO, || format!("open {}", path.display())),
    };
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(failure(
                    TRY_AGAIN,
                    "another call for this interface is still running",
                    format!("{} is locked: `fuser {0}` shows by whom", path.display()),
                ));
            }
            Err((_, errno)) => return Err(refused(&path, errno)),
        }
        thread::sleep(WAIT_STEP);
    }
}

/// Lets programs that are started from now on hold the lock too: one that outlives a plugin that is
/// killed keeps DEL away until it has ended.
pub(crate) fn share_with_children(lock: &Flock<File>) -> Result<(), Failure> {
    fcntl(&**lock, FcntlArg::F_SETFD(FdFlag::empty()))
        .map(drop)
        .context(IO, || "share the attachment's lock".into())
}

fn refused(path: &Path, errno: Errno) -> Failure {
    failure(IO, format!("lock {}", path.display()), errno.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_refused_is_no_fault_of_the_configuration() {
        let error = refused(Path::new("/run/podwire/locks/0a"), Errno::ENOLCK);
        assert_eq!(error.code, IO);
        assert!(error.message.contains("/run/podwire/locks/0a"), "{error}");
        assert!(error.details.contains("ENOLCK"), "{error}");
    }
}
