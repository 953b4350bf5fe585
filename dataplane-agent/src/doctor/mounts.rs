//! Directories of the host that the agent writes to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cni_shim::grace::SWITCH;
use nix::errno::Errno;
use nix::sys::statfs::{BPF_FS_MAGIC, FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use super::finding::Finding;
use super::node::Node;
use crate::advice::Advice;

/// `RAMFS_MAGIC` of `linux/magic.h`.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What is made and removed again; one that is left is removed by the next check-up.
const TRIAL: &str = "podwire_doctor";

pub(super) fn examine(node: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sysctl = node.around.sysctl_dir.join("net/ipv4/ip_forward");
    let remedy = "in a container, mount the host's /proc/sys/net elsewhere, and name that place with --sysctl-dir";
    let sysctls = writable("/proc/sys", &sysctl, may_write(&sysctl), remedy);
    findings.push(match node.status() {
        // It has a place of its own, or it would say so.
        Some(status) if status.settled && sysctls.remedy.is_some() => {
            Finding::note(sysctls.check, format!("{}; the agent that runs can", sysctls.found))
        }
        Some(_) | None => sysctls,
    });
    let install = &node.around.install;
    for (check, directory, remedy) in [
        (
            "CNI plugins",
            &install.plugins,
            "make it a directory of the host that can be written (`mkdir -p`), or correct --cni-bin-dir",
        ),
        (
            "CNI configurations",
            &install.configurations,
            "make it a directory of the host that can be written (`mkdir -p`), or correct --cni-conf-dir",
        ),
    ] {
        if let Some(directory) = directory {
            findings.push(writable(check, directory, may_write(directory), remedy));
        }
    }
    findings.extend(pins(&node.around.bpffs));
    findings.push(state(&node.around.state_dir, kind(&node.around.state_dir)));
    findings.push(hurry(may_write(Path::new(SWITCH))));
    findings
}

fn may_write(path: &Path) -> nix::Result<()> {
    access(path, AccessFlags::W_OK)
}

fn writable(check: &str, path: &Path, answer: nix::Result<()>, remedy: &str) -> Finding {
    let owner = path.metadata().map(|found| found.uid()).unwrap_or_default();
    match answer {
        Ok(()) => Finding::ok(check, format!("{} can be written", path.display())),
        // The agent has no capability to override owners.
        Err(Errno::EACCES) if owner != 0 => Finding::failure(
            check,
            Advice::new(
                format!(
                    "{} belongs to user {owner}, and the agent is root without more rights",
                    path.display()
                ),
                format!("`chown root {}` on the host", path.display()),
            ),
        ),
        Err(errno) => {
            let found = format!("{} cannot be written: {}", path.display(), errno.desc());
            Finding::failure(check, Advice::new(found, remedy))
        }
    }
}

/// Tries what the agent begins with: security modules refuse it, and nothing but trying shows that.
fn pins(bpffs: &Path) -> Option<Finding> {
    let check = "directory of pins";
    let existing = above(bpffs)?;
    // What is wrong with another filesystem is a finding of its own.
    statfs(existing).ok().filter(|found| found.filesystem_type() == BPF_FS_MAGIC)?;
    let trial = existing.join(TRIAL);
    let made = match fs::create_dir(&trial) {
        // Of another check-up, or of one that was killed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    let _ = fs::remove_dir(&trial);
    let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    Some(pinnable(check, existing, made, profile.trim_matches(['\0', '\n', ' '])))
}

/// The nearest directory above: in that of the pins itself an agent would take the trial for another's.
fn above(bpffs: &Path) -> Option<&Path> {
    bpffs.ancestors().skip(1).find(|ancestor| ancestor.is_dir())
}

fn pinnable(check: &str, directory: &Path, made: io::Result<()>, profile: &str) -> Finding {
    let directory = directory.display();
    match made {
        Ok(()) => Finding::ok(check, format!("directories can be made in {directory}")),
        Err(error) if profile.ends_with("(enforce)") => Finding::failure(
            check,
            Advice::new(
                format!(
                    "no directory can be made in {directory}: {error}; this process is under AppArmor, {profile}"
                ),
                "run it unconfined: `appArmorProfile: {type: Unconfined}` in the pod's securityContext",
            ),
        ),
        Err(error) => Finding::failure(
            check,
            Advice::new(
                format!("no directory can be made in {directory}: {error}"),
                "mount the host's bpffs so that it can be written; under SELinux run it with the type `spc_t`",
            ),
        ),
    }
}

/// The kind of filesystem of the directory, or of the nearest above it that exists.
fn kind(path: &Path) -> io::Result<FsType> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    Ok(statfs(existing)?.filesystem_type())
}

fn state(path: &Path, kind: io::Result<FsType>) -> Finding {
    let check = "state directory";
    match kind {
        Ok(TMPFS_MAGIC | RAMFS_MAGIC) => {
            Finding::ok(check, format!("{} goes with a reboot, as pods do", path.display()))
        }
        Ok(_) => Finding::warning(
            check,
            Advice::new(
                format!(
                    "{} outlives a reboot: the pods of before keep their addresses until the agent has found them gone twice",
                    path.display()
                ),
                "have `/run` on a tmpfs, as systemd does, or name a directory on one with --state-dir",
            ),
        ),
        Err(error) => Finding::unseen(check, error),
    }
}

fn hurry(answer: nix::Result<()>) -> Finding {
    let check = "grace periods";
    match answer {
        Ok(()) => Finding::ok(check, format!("{SWITCH} can be written: ADD and DEL need not wait")),
        // The plugin runs on the host, where it can.
        Err(Errno::EROFS) => {
            Finding::unseen(check, format!("{SWITCH} is read-only in a container"))
        }
        Err(errno) => Finding::note(
            check,
            format!("{SWITCH}: {}: each ADD and DEL waits some 30 ms longer", errno.desc()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn what_cannot_be_written_fails_with_the_remedy() {
        let path = Path::new("/host/proc/sys/net/ipv4/ip_forward");
        let finding = writable("/proc/sys", path, Err(Errno::EROFS), "mount it");
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.found.contains("ip_forward cannot be written: Read-only"), "{finding:?}");
        assert_eq!(writable("/proc/sys", path, Ok(()), "").state, Severity::Ok);
    }

    #[test]
    fn what_belongs_to_another_user_is_named_with_the_owner() {
        let host = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(host.path(), Some(998), None).unwrap();
        let finding = writable("CNI plugins", host.path(), Err(Errno::EACCES), "mkdir");
        assert!(finding.found.contains("user 998"), "{finding:?}");
        assert!(finding.remedy.unwrap().starts_with("`chown root "));
    }

    #[test]
    fn nothing_is_tried_where_the_pins_are() {
        let parent = tempfile::tempdir().unwrap();
        let bpffs = parent.path().join("podwire");
        assert_eq!(above(&bpffs.join("deep")), Some(parent.path()));
        fs::create_dir(&bpffs).unwrap();
        assert_eq!(above(&bpffs), Some(parent.path()));
    }

    #[test]
    fn security_modules_are_named_where_they_refuse() {
        let refused = || Err(io::ErrorKind::PermissionDenied.into());
        let finding = |made, profile| pinnable("x", Path::new("/sys/fs/bpf"), made, profile);
        assert_eq!(finding(Ok(()), "cri-containerd.apparmor.d (enforce)").state, Severity::Ok);
        let apparmor = finding(refused(), "cri-containerd.apparmor.d (enforce)");
        assert_eq!(apparmor.state, Severity::Failure);
        assert!(apparmor.remedy.unwrap().contains("appArmorProfile"));
        assert!(finding(refused(), "unconfined").remedy.unwrap().contains("spc_t"));
    }

    #[test]
    fn state_belongs_on_a_filesystem_that_a_reboot_empties() {
        let path = Path::new("/run/podwire");
        assert_eq!(state(path, Ok(TMPFS_MAGIC)).state, Severity::Ok);
        assert_eq!(state(path, Ok(FsType(0xef53))).state, Severity::Warning);
        assert!(kind(Path::new("/proc/nowhere/at/all")).unwrap() != TMPFS_MAGIC);
    }
}
