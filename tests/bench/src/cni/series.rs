//! Figures of many rounds.

use serde_json::{Value, json};
use tests::ratio::median;

/// Milliseconds of each round.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(pub(super) Vec<f64>);

impl Series {
    /// The middle one.
    pub(super) fn p50(&self) -> f64 {
        median(&self.0)
    }

    /// The one that 99 of 100 do not exceed.
    pub(super) fn p99(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * 99).div_ceil(100).max(1) - 1;
        sorted.get(rank).copied().unwrap_or(f64::NAN)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "p50": self.p50(), "p99": self.p99(), "rounds": self.0 })
    }
}

/// What one contender took.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) add: Series,
    pub(super) check: Series,
    pub(super) del: Series,
    /// Processor time of the plugin and of what it ran, user and system.
    pub(super) add_cpu: Series,
    pub(super) del_cpu: Series,
}

impl Figures {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "add_ms": self.add.to_json(),
            "check_ms": self.check.to_json(),
            "del_ms": self.del.to_json(),
            "add_cpu_ms": self.add_cpu.to_json(),
            "del_cpu_ms": self.del_cpu.to_json(),
        })
    }
}

#[cfg(test)]
mod tests_of_series {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred = Series((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred.p99(), 99.0);
        let twelve = Series((1..=12).map(f64::from).collect());
        assert_eq!((twelve.p50(), twelve.p99()), (7.0, 12.0));
        assert!(Series::default().p99().is_nan());
    }
}
