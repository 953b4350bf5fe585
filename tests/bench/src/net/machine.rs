//! The machine that figures come from.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tests::command;

use super::{load, stage};

/// What figures depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Of the sources that all was built from.
    pub(super) commit: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) memory_gib: u64,
    pub(super) iperf3: String,
    /// Of the plugins of the CNI project.
    pub(super) plugins: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When a tool is missing.
    pub(super) fn here() -> Result<Self> {
        let processor = field(&fs::read_to_string("/proc/cpuinfo")?, "model name");
        let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal");
        let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Ok(Self {
            commit: commit(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor,
            processors: std::thread::available_parallelism()?.get(),
            memory_gib: kilobytes.div_ceil(1 << 20),
            iperf3: load::version()?,
            plugins: stage::plugins_version()?,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { commit, kernel, processor, processors, memory_gib, iperf3, plugins } = self;
        write!(
            f,
            "Linux {kernel}, {processors} processors ({processor}), {memory_gib} GiB; {iperf3}; \
             CNI plugins {plugins}; Podwire {commit}"
        )
    }
}

/// With a word about what is not committed; "unknown" outside a checkout.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]);
    command::run(&mut git).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The first value under a name.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
    value.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests_of_machine {
    use super::*;

    #[test]
    fn fields_are_found() {
        assert_eq!(field("a\t: 1\nmodel name\t: X Y\n", "model name"), "X Y");
        assert_eq!(field("", "model name"), "unknown");
    }
}
