//! What was looked at, and what was found.

use std::time::Instant;

use anyhow::Result;
use comfy_table::{Table, presets};

/// All that was looked at in one cluster.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    is_good: bool,
    found: String,
    seconds: f32,
}

impl Report {
    /// Says what was done, and how long it took.
    pub(crate) fn did(&mut self, what: &str, began: Instant) {
        let seconds = began.elapsed().as_secs_f32();
        eprintln!("  {what}: {seconds:.1} s");
        self.rows.push(Row { what: what.to_owned(), is_good: true, found: String::new(), seconds });
    }

    /// Looks at something; returns whether it was good.
    pub(crate) fn check(&mut self, what: &str, look: impl FnOnce() -> Result<String>) -> bool {
        let began = Instant::now();
        let result = look();
        let seconds = began.elapsed().as_secs_f32();
        let is_good = result.is_ok();
        let found = result.unwrap_or_else(|error| format!("{error:#}"));
        let word = if is_good { "pass" } else { "FAIL" };
        eprintln!("  {word}  {what}: {found} ({seconds:.1} s)");
        self.rows.push(Row { what: what.to_owned(), is_good, found, seconds });
        is_good
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> usize {
        self.rows.iter().filter(|row| !row.is_good).count()
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["what", "", "found", "seconds"]);
        for row in &self.rows {
            let first = row.found.lines().next().unwrap_or_default();
            let first: String = first.chars().take(90).collect();
            let word = if row.is_good { "pass" } else { "FAIL" };
            table.add_row([
                row.what.clone(),
                word.to_owned(),
                first,
                format!("{:.1}", row.seconds),
            ]);
        }
        table.to_string()
    }
}
