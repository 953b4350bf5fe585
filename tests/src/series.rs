//! Figures of many rounds or events, and what they say about a limit.

use serde_json::{Value, json};

use crate::ratio::{Outcome, median};

/// Standard deviations of a normal distribution that leave one case in twenty outside.
const SIGMAS: f64 = 1.96;

/// Milliseconds of many rounds or events of one kind.
#[derive(Clone, Debug, Default)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// The middle one.
    pub fn p50(&self) -> f64 {
        median(&self.0)
    }

    /// The one that 99 of 100 do not exceed.
    pub fn p99(&self) -> f64 {
        self.at_rank((self.0.len() * 99).div_ceil(100))
    }

    /// The longest.
    pub fn most(&self) -> f64 {
        self.at_rank(self.0.len())
    }

    /// What the 99th percentile says about a limit: beyond it, it is open where the true one may keep to it. How
    /// many of the values exceed the true one is a matter of chance (order statistics), one in a hundred on average.
    pub fn p99_at_most(&self, limit: f64) -> Outcome {
        let count = self.0.len() as f64;
        let least = (count * 0.99 - SIGMAS * (count * 0.99 * 0.01).sqrt()).floor().max(1.0);
        match (self.p99() <= limit, self.at_rank(least as usize) <= limit) {
            (true, _) => Outcome::Holds,
            (false, true) => Outcome::Undecided,
            (false, false) => Outcome::Fails,
        }
    }

    /// For people who count themselves.
    pub fn to_json(&self) -> Value {
        json!({ "p50": self.p50(), "p99": self.p99(), "rounds": self.0 })
    }

    /// From 1 on.
    fn at_rank(&self, rank: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_but_the_median() {
        let series = Series((1..=1000).rev().map(f64::from).collect());
        assert_eq!((series.p99(), series.most()), (990.0, 1000.0));
        let twelve = Series((1..=12).map(f64::from).collect());
        assert_eq!((twelve.p50(), twelve.p99()), (6.5, 12.0));
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
