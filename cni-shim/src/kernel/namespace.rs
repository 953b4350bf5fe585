//! Work in a container's network namespace.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

use super::Netlink;
use crate::error::{Context as _, INVALID_ENVIRONMENT, KERNEL, UNKNOWN_CONTAINER, failure};
use crate::protocol::Failure;

/// `NSFS_MAGIC` (linux/magic.h): files that are namespaces.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Opens the namespace of `CNI_NETNS`, which must be one, and not our own.
pub(crate) fn open_namespace(path: &Path) -> Result<File, Failure> {
    let what = || format!("open CNI_NETNS {}", path.display());
    let file = File::open(path).context(UNKNOWN_CONTAINER, what)?;
    if fstatfs(&file).context(KERNEL, what)?.filesystem_type() != NSFS_MAGIC {
        return Err(failure(
            INVALID_ENVIRONMENT,
            format!("CNI_NETNS {} is not a namespace", path.display()),
            "it must be a file such as /run/netns/NAME or /proc/PID/ns/net",
        ));
    }
    let own = std::fs::metadata("/proc/self/ns/net").context(KERNEL, what)?;
    let given = file.metadata().context(KERNEL, what)?;
    if (own.st_dev(), own.st_ino()) == (given.st_dev(), given.st_ino()) {
        return Err(failure(
            INVALID_ENVIRONMENT,
            format!("CNI_NETNS {} is the host's own namespace", path.display()),
            "a container on the host's network needs no interface",
        ));
    }
    Ok(file)
}

/// Does some work in a namespace, on a thread that ends there: the caller's stays where it is. The socket
/// is of that namespace wherever it is used.
pub(crate) fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce(Netlink) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
                .context(KERNEL, || "enter the container's namespace".into())?;
            work(Netlink::open()?)
        });
        thread.join().unwrap_or_else(|_| {
            Err(failure(KERNEL, "work in the container's namespace failed", "the thread panicked"))
        })
    })
}
