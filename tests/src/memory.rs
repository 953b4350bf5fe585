//! How much memory a process takes.

use std::fs;

use anyhow::{Context as _, Result};

/// Bytes.
pub const MIB: f64 = 1024.0 * 1024.0;

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// What is resident.
    pub resident: u64,
    /// The part of it that no file holds.
    pub anonymous: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// That of a process.
///
/// # Errors
/// When it is gone.
pub fn of_process(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Memory {
        resident: field(&status, "VmRSS")?,
        anonymous: field(&status, "RssAnon")?,
        peak: field(&status, "VmHWM")?,
    })
}

/// A field of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.with_context(|| format!("{name} in {status}"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_bytes() {
        let status = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t 1000 kB\n";
        assert_eq!(field(status, "VmHWM").unwrap(), 1234 * 1024);
        assert!(field(status, "RssAnon").is_err());
    }

    #[test]
    fn this_process_has_memory() {
        let memory = of_process(std::process::id()).unwrap();
        assert!(memory.resident > memory.anonymous && memory.anonymous > 0, "{memory:?}");
        assert!(memory.peak >= memory.resident, "{memory:?}");
    }
}
