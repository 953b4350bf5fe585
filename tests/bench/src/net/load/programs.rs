//! The time of TC programs as the kernel counts it while packets come.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramType, loaded_programs};
use aya::sys::{Stats, enable_stats};

/// A program that runs less often than one in so many packets is not on their way.
const RARE: u64 = 10;

/// Of all TC programs of a name.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    time: Duration,
    runs: u64,
}

impl Counted {
    fn per_run(self) -> f64 {
        self.time.as_nanos() as f64 / self.runs as f64
    }
}

/// Nanoseconds per run, with the two looks at the clock that counting takes.
pub(super) struct Times(BTreeMap<String, Counted>);

impl Times {
    /// Of all programs.
    pub(super) fn of_all(&self) -> f64 {
        let sum = |sum: Counted, one: &Counted| Counted {
            time: sum.time + one.time,
            runs: sum.runs + one.runs,
        };
        self.0.values().fold(Counted::default(), sum).per_run()
    }

    /// Of the program with this name, if it is on the way.
    pub(super) fn of(&self, name: &str) -> Option<f64> {
        let most = self.0.values().map(|counted| counted.runs).max()?;
        self.0.get(name).filter(|own| own.runs * RARE > most).map(|own| own.per_run())
    }
}

/// While something is sent.
///
/// # Errors
/// When the kernel does not count, or no program has run.
pub(super) fn times(send: impl FnOnce() -> Result<()>) -> Result<Times> {
    // It counts as long as this is open.
    let _counting =
        enable_stats(Stats::RunTime).context("have the kernel count (BPF_ENABLE_STATS)")?;
    let before = counted()?;
    send()?;
    let mut all = counted()?;
    for (name, counted) in &mut all {
        let before = before.get(name).copied().unwrap_or_default();
        counted.time = counted.time.saturating_sub(before.time);
        counted.runs = counted.runs.saturating_sub(before.runs);
    }
    all.retain(|_, counted| counted.runs > 0);
    ensure!(!all.is_empty(), "no program has run");
    Ok(Times(all))
}

/// Since they were loaded.
fn counted() -> Result<BTreeMap<String, Counted>> {
    let mut all: BTreeMap<String, Counted> = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("look at the programs")?;
        if program.program_type() == ProgramType::SchedClassifier.into() {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            let counted = all.entry(name).or_default();
            counted.time += program.run_time();
            counted.runs += program.run_count();
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests_of_times {
    use super::*;

    #[test]
    fn rare_programs_are_on_no_way() {
        let counted = |nanos, runs| Counted { time: Duration::from_nanos(nanos), runs };
        let all = [("a", counted(30_000, 100)), ("b", counted(10_000, 100)), ("c", counted(9, 9))];
        let times = Times(all.map(|(name, counted)| (name.to_owned(), counted)).into());
        assert_eq!((times.of("a"), times.of("b"), times.of("c")), (Some(300.0), Some(100.0), None));
        assert!((times.of_all() - 40_009.0 / 209.0).abs() < 1e-9);
    }
}
