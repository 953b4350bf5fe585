//! Histograms of Prometheus, as the kubelet shows them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// How many observations were at most so many seconds, over all labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// By upper limit in microseconds; none has no limit.
    buckets: BTreeMap<u64, f64>,
    sum: f64,
    count: f64,
}

const UNLIMITED: u64 = u64::MAX;

impl Histogram {
    /// Reads one from a page of metrics; empty when nothing was observed yet.
    pub(super) fn read(page: &str, name: &str) -> Result<Self> {
        let mut histogram = Self::default();
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let (series, value) = rest.rsplit_once(' ').with_context(|| line.to_owned())?;
            let value: f64 = value.parse().with_context(|| line.to_owned())?;
            let part = series.split('{').next().unwrap_or_default();
            match part {
                "_sum" => histogram.sum += value,
                "_count" => histogram.count += value,
                "_bucket" => {
                    let limit = limit(series).with_context(|| line.to_owned())?;
                    *histogram.buckets.entry(limit).or_default() += value;
                }
                // Another metric, whose name is longer.
                _ => {}
            }
        }
        Ok(histogram)
    }

    /// What was observed since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let earlier = |limit: &u64| before.buckets.get(limit).copied().unwrap_or_default();
        let buckets = self.buckets.iter().map(|(limit, count)| (*limit, count - earlier(limit)));
        Self {
            buckets: buckets.collect(),
            sum: self.sum - before.sum,
            count: self.count - before.count,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (limit, count) in &other.buckets {
            *self.buckets.entry(*limit).or_default() += count;
        }
        self.sum += other.sum;
        self.count += other.count;
    }

    pub(super) fn count(&self) -> f64 {
        self.count
    }

    /// Seconds.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// Seconds; between the limits of a bucket as if its observations were spread evenly, as Prometheus does it.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count;
        let (mut below, mut least) = (0.0, 0.0);
        for (limit, count) in &self.buckets {
            let limit = if *limit == UNLIMITED { least } else { *limit as f64 / 1e6 };
            if *count >= rank && *count > below {
                return least + (limit - least) * (rank - below) / (count - below);
            }
            (below, least) = (*count, limit);
        }
        f64::NAN
    }
}

/// Reads `_bucket{...,le="0.5"}`.
fn limit(series: &str) -> Option<u64> {
    let (_, rest) = series.split_once("le=\"")?;
    let (text, _) = rest.split_once('"')?;
    if text == "+Inf" {
        return Some(UNLIMITED);
    }
    Some((text.parse::<f64>().ok()? * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE start_seconds histogram
start_seconds_bucket{kind=\"a\",le=\"0.5\"} 2
start_seconds_bucket{kind=\"a\",le=\"1\"} 4
start_seconds_bucket{kind=\"a\",le=\"+Inf\"} 4
start_seconds_sum{kind=\"a\"} 2
start_seconds_count{kind=\"a\"} 4
start_seconds_bucket{kind=\"b\",le=\"0.5\"} 0
start_seconds_bucket{kind=\"b\",le=\"1\"} 4
start_seconds_bucket{kind=\"b\",le=\"+Inf\"} 4
start_seconds_sum{kind=\"b\"} 3
start_seconds_count{kind=\"b\"} 4
start_seconds_total_sum 99
";

    #[test]
    fn a_page_is_read_over_all_labels() {
        let histogram = Histogram::read(PAGE, "start_seconds").unwrap();
        assert_eq!((histogram.count(), histogram.mean()), (8.0, 0.625));
        assert_eq!(histogram.quantile(0.25), 0.5);
        assert_eq!(histogram.quantile(0.625), 0.75);
        assert_eq!(Histogram::read(PAGE, "other").unwrap(), Histogram::default());
        assert!(Histogram::read("start_seconds_sum x", "start_seconds").is_err());
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let all = Histogram::read(PAGE, "start_seconds").unwrap();
        let first: String =
            PAGE.lines().filter(|line| line.contains("\"a\"")).collect::<Vec<_>>().join("\n");
        let first = Histogram::read(&first, "start_seconds").unwrap();
        let mut since = all.since(&first);
        assert_eq!((since.count(), since.mean()), (4.0, 0.75));
        since.add(&first);
        assert_eq!(since, all);
    }
}
