//! Finds what tests or demos left on the machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command, demo, paths};

/// Prefixes of network namespaces of tests, demos, benchmarks, Kubernetes clusters, and the conformance kit.
const NAMESPACES: [&str; 5] = ["pwt-", "pwd-", "pwb-", "pwk-", "cnic-"];

/// Removes what earlier runs left.
pub(super) fn clean() -> Result<()> {
    let demo = paths::binaries(false).join(demo::BINARY);
    if !demo.exists() {
        return Ok(());
    }
    command::output(Command::new(demo).arg("--clean-dead"))
        .context("remove what an earlier run left")
        .map(drop)
}

/// Returns everything of tests and demos that is there.
pub(super) fn find() -> BTreeSet<PathBuf> {
    let mut found = find_in(Path::new("/run/netns"), Path::new("/sys/fs/bpf"));
    let cgroups = Path::new("/sys/fs/cgroup");
    for hierarchy in entries(cgroups, |_| true) {
        found.extend(entries(&hierarchy, is_ours));
    }
    found.extend(entries(cgroups, is_ours));
    found
}

fn find_in(namespaces: &Path, pins: &Path) -> BTreeSet<PathBuf> {
    let mut found = entries(namespaces, is_ours);
    found.extend(entries(pins, |name| {
        is_ours(name) || (name.starts_with("pw") && name.contains("test"))
    }));
    found.into_iter().collect()
}

fn is_ours(name: &str) -> bool {
    NAMESPACES.iter().any(|prefix| name.starts_with(prefix))
}

fn entries(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_namespaces_and_pins_of_tests_only() {
        let root = std::env::temp_dir().join(format!("podwire-left-{}", std::process::id()));
        for name in [
            "netns/pwt-1",
            "netns/pwd-node1",
            "netns/cni-7",
            "netns/cnic-5-0",
            "bpf/pwt-3",
            "bpf/podwire",
        ] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let found = find_in(&root.join("netns"), &root.join("bpf"));
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(&root).unwrap()).collect();
        assert_eq!(
            names,
            ["bpf/pwt-3", "netns/cnic-5-0", "netns/pwd-node1", "netns/pwt-1"].map(Path::new)
        );
        fs::remove_dir_all(root).unwrap();
    }
}
