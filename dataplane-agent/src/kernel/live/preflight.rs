//! What must be so before anything is tried: each with what to do about it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::error::refusal;
use super::nft;
use crate::advice::Advice;
use crate::kernel::KernelError;

/// TCX is in the kernel from this version on.
const KERNEL: (u32, u32) = (6, 6);
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;
/// Bits of `linux/capability.h`.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
const CAP_SYS_ADMIN: u32 = 21;

const MOUNT: &str = "`mount -t bpf bpf /sys/fs/bpf` (in a container, mount that directory of the host), or \
    name a directory on one with --bpffs";

/// Name of one of the checks.
pub const PRIVILEGES: &str = "privileges";

/// One of the checks.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// What was found, or what is wrong.
    pub result: Result<String, Fault>,
}

/// Why the agent cannot start.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What was being done.
    pub what: String,
    /// What is wrong, and what to do.
    pub advice: Advice,
}

impl From<Fault> for KernelError {
    fn from(fault: Fault) -> Self {
        refusal(fault.what, fault.advice.to_string())
    }
}

/// Checks privileges, kernel, bpffs and tools.
///
/// # Errors
/// Says what is missing and what to do.
pub fn preflight(bpffs: &Path) -> Result<(), KernelError> {
    for check in checks(bpffs) {
        check.result?;
    }
    Ok(())
}

/// The same, each by itself.
pub fn checks(bpffs: &Path) -> [Check; 4] {
    [
        Check { name: "kernel", result: kernel_version() },
        Check { name: PRIVILEGES, result: capabilities() },
        Check { name: "BPF filesystem", result: bpf_filesystem(bpffs) },
        Check { name: "nft", result: nft_program() },
    ]
}

pub(super) fn fault(
    what: impl Into<String>,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> Fault {
    Fault { what: what.into(), advice: Advice::new(found, remedy) }
}

fn kernel_version() -> Result<String, Fault> {
    let what = "check the kernel's version";
    let name = nix::sys::utsname::uname()
        .map_err(|errno| fault(what, errno.to_string(), "let this process call uname(2)"))?;
    let release = name.release().to_string_lossy().into_owned();
    if version(&release).is_none_or(|version| version < KERNEL) {
        let (major, minor) = KERNEL;
        let found = format!("this is Linux {release}; TCX needs {major}.{minor} or newer");
        return Err(fault(what, found, format!("boot a kernel of {major}.{minor} or newer")));
    }
    Ok(format!("Linux {release}"))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The privileges of this process.
///
/// # Errors
/// Says which are missing.
pub fn capabilities() -> Result<String, Fault> {
    let what = "check the privileges in /proc/self/status";
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| fault(what, error.to_string(), "mount /proc"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN stands for those that were once part of it.
    let is_missing = |(name, bit): &&(&str, u32)| {
        let has_all = *name != "CAP_NET_ADMIN" && has(CAP_SYS_ADMIN);
        !has_all && !has(*bit)
    };
    let missing: Vec<_> = CAPABILITIES.iter().filter(is_missing).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(CAPABILITIES.map(|(name, _)| name).join(", "));
    }
    let found = format!("{} missing", missing.join(", "));
    Err(fault(what, found, "run as root, or in a container that has them"))
}

fn nft_program() -> Result<String, Fault> {
    nft::executable().map(|file| file.display().to_string()).ok_or_else(nft::missing)
}

/// The BPF filesystem of the host. The directory itself is made later: its nearest ancestor that exists decides.
///
/// # Errors
/// Says what is there, and what to do.
pub fn bpf_filesystem(bpffs: &Path) -> Result<String, Fault> {
    let directory = existing(bpffs);
    let what = || format!("check {} (--bpffs)", directory.display());
    let unseen = |error: io::Error| fault(what(), error.to_string(), "let this process see it");
    let kind = nix::sys::statfs::statfs(&directory).map_err(|errno| unseen(errno.into()))?;
    let mounts = mounts_of_host().map_err(unseen)?;
    let is_bpffs = kind.filesystem_type().0 == BPFFS_MAGIC;
    if !is_bpffs && is_mounted(&mounts, bpffs) {
        return Err(private(what()));
    }
    if !is_bpffs {
        return Err(fault(what(), "this is no BPF filesystem", MOUNT));
    }
    let device = fs::metadata(&directory).map_err(unseen)?.st_dev();
    let device = format!("{}:{}", major(device), minor(device));
    let is_known = mounts.lines().any(|line| line.split(' ').nth(2) == Some(&device));
    // Without the list nothing can be said.
    if !is_known && !mounts.is_empty() {
        return Err(private(what()));
    }
    Ok(format!("{} is on one", bpffs.display()))
}

fn private(what: String) -> Fault {
    let found = "what is mounted here is so for this process only (a private mount namespace), and would \
                 vanish with it, maps, programs and all";
    let remedy = "mount it on the host (`mount -t bpf bpf /sys/fs/bpf`), let a container propagate it, and \
                  start the agent with `nsenter --net=...`, not with `ip netns exec`";
    fault(what, found, remedy)
}

/// The mounts of process 1; empty in a container that must not see them.
fn mounts_of_host() -> io::Result<String> {
    match fs::read_to_string("/proc/1/mountinfo") {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(String::new()),
        result => result,
    }
}

/// Whether the host has a BPF filesystem where this process has none.
fn is_mounted(mounts: &str, path: &Path) -> bool {
    mounts.lines().any(|line| {
        let is_bpf = line.split(' ').skip_while(|field| *field != "-").nth(1) == Some("bpf");
        let point = line.split(' ').nth(4);
        is_bpf && point.is_some_and(|point| path.starts_with(point))
    })
}

fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| ancestor.exists() && !ancestor.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases_of_distributions() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("6.6.0"), Some((6, 6)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn the_mounts_of_the_host_tell_of_a_private_namespace() {
        let mounts = "31 24 0:27 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n";
        assert!(is_mounted(mounts, Path::new("/sys/fs/bpf/podwire")));
        assert!(!is_mounted(mounts, Path::new("/sys/fs/bpf2/podwire")));
        assert!(!is_mounted(&mounts.replace(" bpf bpf", " ext4 bpf"), Path::new("/sys/fs/bpf")));
    }

    #[test]
    fn what_is_no_bpf_filesystem_is_refused_with_the_remedy() {
        let fault = bpf_filesystem(Path::new("/proc/nowhere/podwire")).unwrap_err();
        let error = KernelError::from(fault).to_string();
        assert!(error.contains("/proc (--bpffs)") && error.contains("mount -t bpf"), "{error}");
    }
}
