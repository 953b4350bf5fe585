//! Processor time of packets that no process pays for.

use std::fs;

use anyhow::{Context as _, Result};

/// The kernel tells times of processes in hundredths of a second (`USER_HZ`, `proc_pid_stat(5)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds that the kernel's threads for soft interrupts (`ksoftirqd/N`) have run.
///
/// # Errors
/// Without `/proc`.
pub(super) fn seconds() -> Result<f64> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        if stat.contains("(ksoftirqd/") {
            ticks += of_stat(&stat).with_context(|| stat.clone())?;
        }
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// The 14th and the 15th field: time in user and in kernel mode, in ticks.
fn of_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests_of_softirq {
    use super::*;

    #[test]
    fn ticks_are_two_fields() {
        let stat = "14 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 7 1250 0 0 20 0 1 0 5 0 0";
        assert_eq!(of_stat(stat), Some(1257));
        assert!(seconds().unwrap() >= 0.0);
    }
}
