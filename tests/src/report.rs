//! What people see of a run that measures: progress, tables, and what must hold.

use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::ratio::{Outcome, median};

/// A bar on standard error.
pub fn progress(what: &'static str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix} {bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(steps).with_style(style).with_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A table with this header.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header.iter().copied());
    table
}

/// Prints the heading of a part.
pub fn heading(text: &str) {
    println!("\n=== {text} ===");
}

/// Prints what the next lines are about.
pub fn section(text: &str) {
    println!("\n{text}");
}

/// The median of all rounds, and their range.
pub fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values))
}

/// A line at the end: what must hold, and whether it does.
#[derive(Debug)]
pub struct Verdict {
    /// What was measured, and the limit.
    pub text: String,
    /// Whether it is kept to.
    pub outcome: Outcome,
}

impl Verdict {
    /// The word before the text.
    pub fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Holds => "pass",
            Outcome::Undecided => "open",
            Outcome::Fails => "FAIL",
        }
    }
}

/// Prints the last lines; returns the exit code.
pub fn verdicts(verdicts: &[Verdict]) -> u8 {
    heading("what must hold");
    for verdict in verdicts {
        println!("{}  {}", verdict.word(), verdict.text);
    }
    let count = |outcome| verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
    let (passed, open) = (count(Outcome::Holds), count(Outcome::Undecided));
    let failed = verdicts.len() - passed - open;
    if open > 0 {
        println!("\nopen: beyond the limit, but by less than this machine's noise (95 % interval)");
    }
    println!("\n{passed} passed, {open} open, {failed} failed");
    u8::from(failed > 0)
}
