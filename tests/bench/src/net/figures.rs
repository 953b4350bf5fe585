//! All that was measured.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tests::ratio::Ratio;

use super::metric::Metric;
use super::way::{Contender, Label};
use crate::common::Compared;

/// Values of all rounds, and what could not be measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    values: BTreeMap<(Label, Metric), Vec<f64>>,
    failures: Vec<String>,
    /// Of the parts beside the ways.
    pub(crate) compared: Vec<Compared>,
}

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
        self.values.entry((label, metric)).or_default().push(value);
    }

    /// Something does not work, and why.
    pub(crate) fn failed(&mut self, what: String) {
        self.failures.push(what);
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Values of all rounds.
    pub(crate) fn get(&self, label: Label, metric: Metric) -> Option<&[f64]> {
        self.values.get(&(label, metric)).map(Vec::as_slice)
    }

    /// To somebody else's on the same way, in the same rounds; none where one of them has missed some.
    pub(crate) fn ratio(&self, label: Label, to: Contender, metric: Metric) -> Option<Ratio> {
        let (own, other) = (self.get(label, metric)?, self.get(label.of(to), metric)?);
        (own.len() == other.len()).then(|| Ratio::new(own, other))
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = Label> {
        let mut last = None;
        self.values
            .keys()
            .filter_map(move |(label, _)| (last.replace(*label) != Some(*label)).then_some(*label))
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |((label, metric), rounds): (&(Label, Metric), &Vec<f64>)| Row {
            label: *label,
            metric: *metric,
            rounds: rounds.clone(),
        };
        self.values.iter().map(row).collect()
    }

    /// From the values of a document: rows, and what is compared of the parts.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn from_document(rows: &Value, compared: &Value) -> Result<Self> {
        let rows: Vec<Row> = serde_json::from_value(rows.clone()).context("the figures")?;
        let compared = serde_json::from_value(compared.clone()).context("those of the parts")?;
        let values = rows.into_iter().map(|row| ((row.label, row.metric), row.rounds)).collect();
        Ok(Self { values, failures: Vec::new(), compared })
    }
}
