//! Grace periods of RCU: the kernel waits for one where a TCX program comes or goes, with the lock of all
//! interfaces held (`tcx_entry_sync`, as of 6.18). A common one takes several ticks of its clock, an
//! expedited one some hundred microseconds.
//!
//! The kernel's switch is one for the whole machine, so it is on only while somebody of ours waits:
//!
//! 1. Who waits holds a shared lock of the switch's file, and writes [`OURS`] into it where it finds 0.
//! 2. Who is done asks for the lock alone, without waiting: the last one gets it, and writes 0.
//! 3. Who is killed leaves [`OURS`], which the next one that is done, or the agent's next look, sets to 0.
//!
//! A value of somebody else is never changed. `rcu_normal` goes before it in the kernel, so who has set that
//! for the sake of real time keeps it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The switch. Any number but 0 means on.
pub const SWITCH: &str = "/sys/kernel/rcu_expedited";
/// What we write, so that it is known from what others do: the number of our routes, too.
const OURS: i64 = 157;

/// The last one holds the lock alone for the time of a write.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_micros(50);

/// As long as this lives, grace periods are expedited; where that cannot be, all goes its usual way.
#[derive(Debug)]
#[must_use = "dropped, it ends"]
pub struct Expedited(Option<Flock<File>>);

impl Expedited {
    /// Begins, if it is `wanted`.
    pub fn begin(wanted: bool) -> Self {
        Self(wanted.then(|| begin(Path::new(SWITCH)).ok().flatten()).flatten())
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Some(switch) = self.0.take() {
            // What is left on is ended by whoever comes next.
            let _ = end(&switch);
        }
    }
}

/// Ends what somebody of ours has begun who was killed; false if there is nothing to end, or somebody is
/// at it.
///
/// # Errors
/// When the switch cannot be written.
pub fn end_abandoned() -> io::Result<bool> {
    end_abandoned_at(Path::new(SWITCH))
}

fn begin(switch: &Path) -> io::Result<Option<Flock<File>>> {
    let mut file = File::options().read(true).write(true).open(switch)?;
    for _ in 0..TRIES {
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(lock) => {
                return Ok(match value(&lock)? {
                    0 => lock.write_all_at(text(OURS).as_bytes(), 0).map(|()| Some(lock))?,
                    OURS => Some(lock),
                    _ => None,
                });
            }
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Of several that end at once the last one gets the lock: asking for it gives up the shared one.
fn end(switch: &Flock<File>) -> io::Result<bool> {
    match switch.relock(FlockArg::LockExclusiveNonblock) {
        Ok(()) if value(switch)? == OURS => {
            switch.write_all_at(text(0).as_bytes(), 0).map(|()| true)
        }
        Ok(()) | Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn end_abandoned_at(switch: &Path) -> io::Result<bool> {
    // Nearly always there is nothing to do, and nothing to write.
    match File::open(switch) {
        Ok(file) if value(&file)? == OURS => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let file = File::options().read(true).write(true).open(switch)?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(lock) => end(&lock),
        Err((_, Errno::EWOULDBLOCK)) => Ok(false),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn value(switch: &File) -> io::Result<i64> {
    let mut bytes = [0; 32];
    let length = switch.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    let first = text.lines().next().unwrap_or_default();
    first.trim().parse().map_err(io::Error::other)
}

fn text(value: i64) -> String {
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    fn switch(content: &str) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rcu_expedited");
        fs::write(&path, content).expect("written");
        (directory, path)
    }

    fn at(path: &Path) -> Expedited {
        Expedited(begin(path).expect("a switch"))
    }

    fn now(path: &Path) -> i64 {
        value(&File::open(path).expect("a switch")).expect("a number")
    }

    #[test]
    fn the_last_one_switches_it_off() {
        let (_directory, path) = switch("0\n");
        let (first, second) = (at(&path), at(&path));
        assert_eq!(now(&path), OURS);
        drop(first);
        assert_eq!(now(&path), OURS, "somebody still waits");
        assert!(!end_abandoned_at(&path).expect("a look"), "it is not abandoned");
        drop(second);
        assert_eq!(now(&path), 0);
    }

    #[test]
    fn what_somebody_else_has_set_stays() {
        for theirs in ["1\n", "-1\n", "2\n"] {
            let (_directory, path) = switch(theirs);
            drop(at(&path));
            assert!(!end_abandoned_at(&path).expect("a look"));
            assert_eq!(fs::read_to_string(&path).expect("a switch"), theirs);
            // Set meanwhile: by hand, which asks nobody.
            fs::write(&path, "0\n").expect("written");
            let guard = at(&path);
            fs::write(&path, theirs).expect("written");
            drop(guard);
            assert_eq!(fs::read_to_string(&path).expect("a switch"), theirs);
        }
    }

    #[test]
    fn what_a_killed_one_has_left_is_ended() {
        let (_directory, path) = switch("157\n");
        assert!(end_abandoned_at(&path).expect("a look"));
        assert_eq!(now(&path), 0);
        assert!(!end_abandoned_at(&path).expect("a look"));
        let (_directory, path) = switch("157\n");
        drop(at(&path));
        assert_eq!(now(&path), 0, "by the next one, too");
    }

    #[test]
    fn without_a_switch_all_goes_its_usual_way() {
        let nowhere = Path::new("/nonexistent/rcu_expedited");
        assert!(begin(nowhere).is_err());
        assert!(!end_abandoned_at(nowhere).expect("nothing to end"));
        let (_directory, path) = switch("x\n");
        assert!(begin(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("a switch"), "x\n");
        assert!(Expedited::begin(false).0.is_none());
    }

    /// Many at once: at the end it is off, whoever came last.
    #[test]
    fn it_is_off_at_the_end() {
        let (_directory, path) = switch("0\n");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..200).for_each(|_| drop(begin(&path).map(Expedited))));
            }
        });
        assert_eq!(now(&path), 0);
    }
}
