//! The machine itself: privileges, kernel, BPF file system.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use super::Scope;

const BPFFS: &str = "/sys/fs/bpf";
/// First kernel with TCX, by which the programs are attached.
const KERNEL_MIN: (u32, u32) = (6, 6);

/// Whether we run as root.
pub(super) fn is_root() -> bool {
    geteuid().is_root()
}

/// Checks what no installation can change.
pub(super) fn check(scope: Scope) -> Result<()> {
    ensure!(
        cfg!(target_os = "linux") && cfg!(any(target_arch = "x86_64", target_arch = "aarch64")),
        "this needs Linux on x86_64 or aarch64"
    );
    if scope == Scope::Build {
        return Ok(());
    }
    ensure!(is_root(), "network namespaces and BPF programs need root: run the command as root");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel release")?;
    check_kernel(release.trim())?;
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "the kernel has no type information (/sys/kernel/btf/vmlinux): boot one that is built with \
         CONFIG_DEBUG_INFO_BTF=y"
    );
    Ok(())
}

fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("cannot read the kernel's version from `{release}`");
    };
    ensure!(
        (major, minor) >= KERNEL_MIN,
        "the kernel is {release}, but {}.{} or newer is needed (TCX): boot a newer one; on Debian 12 \
         it is in bookworm-backports",
        KERNEL_MIN.0,
        KERNEL_MIN.1
    );
    Ok(())
}

/// Mounts the BPF file system where it is not mounted yet.
pub(super) fn mount_bpffs() -> Result<()> {
    let found = statfs(BPFFS).with_context(|| format!("{BPFFS}: the kernel has no BPF"))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    eprintln!("  mounting the BPF file system at {BPFFS}");
    let options = Some("mode=700");
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), options).with_context(|| {
        format!("mount bpffs at {BPFFS}: are we in a container without the right to mount?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_from_6_6_on_will_do() {
        for release in ["6.6.0", "6.18.44-debian", "7.0-rc1", "6.6-generic"] {
            check_kernel(release).unwrap();
        }
        for release in ["6.5.13", "6.1.0-40-amd64", "5.15.0", "unknown", ""] {
            assert!(check_kernel(release).is_err(), "{release}");
        }
    }
}
