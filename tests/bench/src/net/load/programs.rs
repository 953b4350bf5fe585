//! The time of TC programs as the kernel counts it while packets come.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramType, loaded_programs};
use aya::sys::{Stats, enable_stats};

/// Of all TC programs of the machine, since they were loaded.
#[derive(Default)]
struct Counted {
    time: Duration,
    runs: u64,
}

/// Nanoseconds per run while something is sent, with the two looks at the clock that counting takes.
///
/// # Errors
/// When the kernel does not count, or no program has run.
pub(super) fn time_per_run(send: impl FnOnce() -> Result<()>) -> Result<f64> {
    // It counts as long as this is open.
    let _counting =
        enable_stats(Stats::RunTime).context("have the kernel count (BPF_ENABLE_STATS)")?;
    let before = counted()?;
    send()?;
    let after = counted()?;
    let runs = after.runs - before.runs;
    ensure!(runs > 0, "no program has run");
    Ok((after.time - before.time).as_nanos() as f64 / runs as f64)
}

fn counted() -> Result<Counted> {
    let mut all = Counted::default();
    for program in loaded_programs() {
        let program = program.context("look at the programs")?;
        if program.program_type() == ProgramType::SchedClassifier.into() {
            all.time += program.run_time();
            all.runs += program.run_count();
        }
    }
    Ok(all)
}
