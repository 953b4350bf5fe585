//! All that was measured.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tests::ratio::Ratio;

use super::metric::Metric;
use super::way::{Contender, Label};

/// Values of all rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures(BTreeMap<(Label, Metric), Vec<f64>>);

/// One line of the document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) label: Label,
    pub(crate) metric: Metric,
    /// In the unit of the metric, in the order of the rounds.
    pub(crate) rounds: Vec<f64>,
}

impl Figures {
    pub(crate) fn add(&mut self, label: Label, metric: Metric, value: f64) {
        self.0.entry((label, metric)).or_default().push(value);
    }

    /// Values of all rounds.
    pub(crate) fn get(&self, label: Label, metric: Metric) -> Option<&[f64]> {
        self.0.get(&(label, metric)).map(Vec::as_slice)
    }

    /// To somebody else's on the same way, in the same rounds.
    pub(crate) fn ratio(&self, label: Label, to: Contender, metric: Metric) -> Option<Ratio> {
        let (own, other) = (self.get(label, metric)?, self.get(label.of(to), metric)?);
        Some(Ratio::new(own, other))
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = Label> {
        let mut last = None;
        self.0
            .keys()
            .filter_map(move |(label, _)| (last.replace(*label) != Some(*label)).then_some(*label))
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |((label, metric), rounds): (&(Label, Metric), &Vec<f64>)| Row {
            label: *label,
            metric: *metric,
            rounds: rounds.clone(),
        };
        self.0.iter().map(row).collect()
    }

    /// From a document.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn from_rows(rows: &serde_json::Value) -> Result<Self> {
        let rows: Vec<Row> = serde_json::from_value(rows.clone()).context("the figures")?;
        Ok(Self(rows.into_iter().map(|row| ((row.label, row.metric), row.rounds)).collect()))
    }
}
