//! Work in a container's network namespace.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

use super::Netlink;
use crate::error::{Context as _, INVALID_ENVIRONMENT, IO, KERNEL, UNKNOWN_CONTAINER, failure};
use crate::protocol::Failure;

/// `NSFS_MAGIC` (linux/magic.h): files that are namespaces.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// Of the thread: whoever is in another one is not taken for the first.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Opens the namespace of `CNI_NETNS`, which must be one, and not our own.
pub(crate) fn open_namespace(path: &Path) -> Result<File, Failure> {
    let what = || format!("open CNI_NETNS {}", path.display());
    let file = File::open(path).map_err(|error| {
        // The runtime forgets a container that is said to be unknown.
        let is_gone = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        let code = if is_gone { UNKNOWN_CONTAINER } else { IO };
        failure(code, what(), error.to_string())
    })?;
    if fstatfs(&file).context(KERNEL, what)?.filesystem_type() != NSFS_MAGIC {
        return Err(failure(
            INVALID_ENVIRONMENT,
            format!("CNI_NETNS {} is not a namespace", path.display()),
            "it must be a file such as /run/netns/NAME or /proc/PID/ns/net",
        ));
    }
    let own = std::fs::metadata(OWN_NAMESPACE).context(KERNEL, what)?;
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

/// Does some work in a namespace, and comes back. The socket is of that namespace wherever it is used.
///
/// A thread that ends there would not have to come back; but it took 0.2 ms until one was there, and this way takes 0.04.
pub(crate) fn inside<T>(
    namespace: &File,
    work: impl FnOnce(Netlink) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let what = || "enter the container's namespace".to_owned();
    let own = File::open(OWN_NAMESPACE).context(KERNEL, what)?;
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context(KERNEL, what)?;
    let done = Netlink::open().and_then(work);
    let back = setns(own.as_fd(), CloneFlags::CLONE_NEWNET);
    back.context(KERNEL, || "leave the container's namespace".into())?;
    done
}
