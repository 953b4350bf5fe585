//! Figures of many events, and what they say about a limit.

use harness::ratio::{Outcome, median};

/// Standard deviations of a normal distribution that leave one case in twenty outside.
const SIGMAS: f64 = 1.96;

/// Milliseconds of many events of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(pub(super) Vec<f64>);

impl Series {
    pub(super) fn p50(&self) -> f64 {
        median(&self.0)
    }

    /// The one that 99 of 100 do not exceed.
    pub(super) fn p99(&self) -> f64 {
        self.at_rank((self.0.len() * 99).div_ceil(100))
    }

    pub(super) fn most(&self) -> f64 {
        self.at_rank(self.0.len())
    }

    /// What the 99th percentile says about a limit: beyond it, it is open where the true one may keep to it. How
    /// many of the values exceed the true one is a matter of chance (order statistics), one in a hundred on average.
    pub(super) fn p99_at_most(&self, limit: f64) -> Outcome {
        let count = self.0.len() as f64;
        let least = (count * 0.99 - SIGMAS * (count * 0.99 * 0.01).sqrt()).floor().max(1.0);
        match (self.p99() <= limit, self.at_rank(least as usize) <= limit) {
            (true, _) => Outcome::Holds,
            (false, true) => Outcome::Undecided,
            (false, false) => Outcome::Fails,
        }
    }

    /// From 1 on.
    fn at_rank(&self, rank: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// Of a single figure, which has no interval.
pub(super) fn at_most(value: f64, limit: f64) -> Outcome {
    if value <= limit { Outcome::Holds } else { Outcome::Fails }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let series = Series((1..=1000).rev().map(f64::from).collect());
        assert_eq!((series.p99(), series.most()), (990.0, 1000.0));
        assert!(Series::default().p99().is_nan());
    }

    #[test]
    fn a_percentile_beyond_its_limit_by_chance_is_open() {
        let series = Series((1..=1000).map(f64::from).collect());
        assert_eq!(series.p99_at_most(990.0), Outcome::Holds);
        assert_eq!(series.p99_at_most(985.0), Outcome::Undecided);
        assert_eq!(series.p99_at_most(980.0), Outcome::Fails);
        assert_eq!(Series::default().p99_at_most(1.0), Outcome::Fails);
    }
}
