//! What all measurements share: options, the order of turns, tables, documents.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tests::report::{self, Verdict, section};

/// Options of the parts.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Fewer rounds of fewer things: shows that all works, and orders of magnitude
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write all figures into this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// Writes the document where it is wanted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, document: impl FnOnce() -> Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        std::fs::write(path, format!("{:#}\n", document()))
            .with_context(|| format!("write {}", path.display()))
    }
}

/// Cells for people, in the terminal and in a report.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// For the terminal.
    pub(crate) fn print(&self) {
        section(&self.title);
        let header: Vec<&str> = self.header.iter().map(String::as_str).collect();
        let mut grid = report::table(&header);
        grid.add_rows(&self.rows);
        println!("{grid}");
    }

    /// For a report.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n\n", self.title);
        let dashes = vec!["---".to_owned(); self.header.len()];
        for row in [&self.header, &dashes].into_iter().chain(&self.rows) {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// A figure that does not hang on how fast the machine is; less is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compared {
    pub(crate) what: String,
    pub(crate) rounds: Vec<f64>,
}

/// What was measured beside the ways of packets.
#[derive(Debug)]
pub(crate) struct Part {
    /// In a document.
    pub(crate) name: &'static str,
    pub(crate) table: Table,
    /// Below the table.
    pub(crate) notes: Vec<String>,
    pub(crate) document: Value,
    pub(crate) verdicts: Vec<Verdict>,
    /// With those of other runs.
    pub(crate) compared: Vec<Compared>,
}

impl Part {
    /// For the terminal.
    pub(crate) fn print(&self) {
        self.table.print();
        for note in &self.notes {
            println!("{note}");
        }
    }

    /// For a report.
    pub(crate) fn markdown(&self) -> String {
        let notes: String = self.notes.iter().map(|note| format!("\n{note}\n")).collect();
        self.table.markdown() + &notes
    }

    /// Shows, writes where it is wanted, judges; returns the exit code.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(self, options: &Options) -> Result<u8> {
        self.print();
        let mut document = self.document;
        document["verdicts"] = verdicts(&self.verdicts);
        options.write(|| document)?;
        Ok(report::verdicts(&self.verdicts))
    }
}

/// Verdicts in a document.
pub(crate) fn verdicts(verdicts: &[Verdict]) -> Value {
    verdicts
        .iter()
        .map(|verdict| json!({ "verdict": verdict.word(), "what": verdict.text }))
        .collect()
}

/// Who comes when: what one leaves to the next, each leaves to each.
pub(crate) fn order(count: usize, round: usize) -> Vec<usize> {
    let forth = 0..count;
    if round.is_multiple_of(2) { forth.collect() } else { forth.rev().collect() }
}

#[cfg(test)]
mod tests_of_order {
    use super::*;

    #[test]
    fn the_order_is_reversed_every_other_round() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [2, 1, 0]);
    }
}
