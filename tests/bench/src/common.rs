//! What all measurements share: options, the order of turns, documents.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};
use tests::report::Verdict;

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
