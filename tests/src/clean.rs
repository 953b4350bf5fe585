//! Removes what runs left whose process is gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command;
use crate::namespace::NETNS;
use crate::room::{cgroups, remove_cgroups};
use crate::run::{BPFFS, Kind, OWNER_FILE, RUN, start_of};
use crate::wait::wait_until;

/// A file in the directory of a run that was left on purpose.
pub const KEPT_FILE: &str = "kept";

/// Which runs to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of dead processes that were not left on purpose.
    Dead,
    /// Those of dead processes.
    DeadAndKept,
    /// Those of this process, which has ended.
    Of(u32),
}

/// As [`clean`], and says what was there.
///
/// # Errors
/// When something cannot be removed.
pub fn report(which: Which) -> Result<()> {
    for name in clean(which)? {
        println!("removed {name}, which an earlier run left");
    }
    Ok(())
}

/// Removes namespaces with their processes, pins, and directories; returns the names of the runs.
///
/// # Errors
/// When something cannot be removed.
pub fn clean(which: Which) -> Result<Vec<String>> {
    let names: BTreeSet<String> = [NETNS, BPFFS, RUN]
        .iter()
        .flat_map(|directory| entries(Path::new(directory)))
        .filter_map(|name| run_of(&name).map(|(run, _)| run.to_owned()))
        .filter(|run| is_wanted(run, which))
        .collect();
    for run in &names {
        remove(run).with_context(|| format!("remove {run}"))?;
    }
    Ok(names.into_iter().collect())
}

fn is_wanted(run: &str, which: Which) -> bool {
    let Some((_, pid)) = run_of(run) else { return false };
    let directory = Path::new(RUN).join(run);
    let is_dead = match (start_of(pid), fs::read_to_string(directory.join(OWNER_FILE))) {
        (None, _) => true,
        (Some(now), Ok(then)) => now != then,
        (Some(_), Err(_)) => false,
    };
    match which {
        Which::Dead => is_dead && !directory.join(KEPT_FILE).exists(),
        Which::DeadAndKept => is_dead,
        Which::Of(wanted) => pid == wanted,
    }
}

/// The run `pwt-<pid>-<number>` that a name begins with, and its process.
fn run_of(name: &str) -> Option<(&str, u32)> {
    let prefix = Kind::ALL.iter().map(|kind| kind.prefix()).find(|p| name.starts_with(p))?;
    let rest = &name[prefix.len()..];
    let (pid, rest) = rest.split_once('-')?;
    let number = rest.split('-').next()?;
    let _: u32 = number.parse().ok()?;
    let length = prefix.len() + pid.len() + 1 + number.len();
    Some((&name[..length], pid.parse().ok()?))
}

fn remove(run: &str) -> Result<()> {
    let of_run = |name: &String| run_of(name).is_some_and(|(of, _)| of == run);
    let namespaces: Vec<_> = entries(Path::new(NETNS)).into_iter().filter(of_run).collect();
    let inodes: BTreeSet<u64> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NETNS).join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    // An agent that was being killed may still write.
    wait_until("the end of its processes", Duration::from_secs(10), || {
        let inside = processes(&inodes);
        for pid in &inside {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        ensure!(inside.is_empty(), "{inside:?} are alive");
        Ok(())
    })?;
    let prefix = format!("{run}-");
    // Those of containers end with the first process of their node, not at once.
    wait_until("the end of its groups of processes", Duration::from_secs(10), || {
        remove_cgroups(&cgroups(|name| name.starts_with(&prefix)))
    })?;
    for name in namespaces {
        command::run(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    for directory in [Path::new(BPFFS).join(run), Path::new(RUN).join(run)] {
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
    }
    Ok(())
}

/// Processes whose network namespace is one of these.
fn processes(namespaces: &BTreeSet<u64>) -> Vec<i32> {
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    pids.filter(|pid: &i32| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net"));
        namespace.is_ok_and(|metadata| namespaces.contains(&metadata.ino()))
    })
    .collect()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs_are_told_from_others() {
        assert_eq!(run_of("pwt-12-3-node1"), Some(("pwt-12-3", 12)));
        assert_eq!(run_of("pwd-4-0"), Some(("pwd-4-0", 4)));
        assert_eq!(run_of("pwk-4-0-node1"), Some(("pwk-4-0", 4)));
        for other in ["pwt-x-1", "podwire", "pwd-", "pwd-1", "cni-1-2", "pwt-1-x"] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }
}
