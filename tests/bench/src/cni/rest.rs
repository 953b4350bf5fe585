//! The machine comes to rest before a call is measured: what an earlier one has left to do, in the kernel and in
//! agents, is not that call's.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::wait::wait_until;

/// Long beside the kernel's unit of such times, 10 ms.
const WINDOW: Duration = Duration::from_millis(100);
/// So much of their time processors have nothing to do.
const IDLE_MIN: f64 = 0.9;
/// Then it is measured on a machine that does not rest, and the results say so.
const TIME_MAX: Duration = Duration::from_secs(3);

static MISSED: AtomicU32 = AtomicU32::new(0);

/// Waits until the machine has been at rest for a while.
///
/// # Errors
/// When the kernel does not tell what processors do.
pub(super) fn wait() -> Result<()> {
    let mut before = (Instant::now(), look()?);
    let rest = wait_until("rest", TIME_MAX, || {
        let (since, times) = before;
        ensure!(since.elapsed() >= WINDOW, "it has not been looked at for long enough");
        before = (Instant::now(), look()?);
        ensure!(is_rest(times, before.1), "processors are busy");
        Ok(())
    });
    if rest.is_err() {
        MISSED.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// How often there was no rest.
pub(super) fn missed() -> u32 {
    MISSED.load(Ordering::Relaxed)
}

/// Time since boot for which the host of this machine gave its processors to others though they had work, in the
/// kernel's units, 10 ms; where there is no host, or it does not tell, it stands still.
///
/// # Errors
/// When the kernel does not tell what processors do.
pub(super) fn stolen() -> Result<u64> {
    Ok(look()?.stolen)
}

/// Units of time since boot, over all processors: idle ones, what the host took, and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    idle: u64,
    stolen: u64,
    all: u64,
}

fn look() -> Result<Times> {
    times(&fs::read_to_string("/proc/stat")?)
}

fn times(stat: &str) -> Result<Times> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("/proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq, steal; then times of guests, which are user's.
    let fields: Vec<u64> =
        line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>()?;
    let idle = fields.iter().skip(3).take(2).sum();
    let stolen = fields.get(7).copied().unwrap_or_default();
    Ok(Times { idle, stolen, all: fields.iter().sum() })
}

fn is_rest(before: Times, now: Times) -> bool {
    let all = now.all.saturating_sub(before.all);
    let idle = now.idle.saturating_sub(before.idle);
    all > 0 && idle as f64 >= IDLE_MIN * all as f64
}

#[cfg(test)]
mod tests_of_rest {
    use super::*;

    #[test]
    fn rest_is_what_is_idle() {
        let at = |user: u64, idle: u64| {
            times(&format!("cpu  {user} 0 10 {idle} 5 0 1 3 7 7\ncpu0 1 2\n")).unwrap()
        };
        assert_eq!(at(100, 200), Times { idle: 205, stolen: 3, all: 319 });
        assert!(is_rest(at(100, 200), at(101, 219)));
        assert!(!is_rest(at(100, 200), at(110, 210)));
        assert!(!is_rest(at(100, 200), at(100, 200)), "nothing is known");
        assert!(times("intr 1").is_err());
    }
}
