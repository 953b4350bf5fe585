//! Ratios of what was measured in turn, and what they can tell on a machine that others use, too.

/// Standard deviations of a normal distribution that leave one case in twenty outside.
const SIGMAS: f64 = 1.96;

/// The median of the ratios of rounds, and where the true median is in nineteen of twenty runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median of the rounds.
    pub median: f64,
    /// Lower end of the interval.
    pub least: f64,
    /// Upper end of the interval.
    pub most: f64,
}

/// What a ratio says about a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The median keeps to the limit.
    Holds,
    /// The median is beyond the limit, by less than it would be by chance.
    Undecided,
    /// It is beyond the limit.
    Fails,
}

impl Outcome {
    /// The better of two.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Holds, _) | (_, Self::Holds) => Self::Holds,
            (Self::Undecided, _) | (_, Self::Undecided) => Self::Undecided,
            (Self::Fails, Self::Fails) => Self::Fails,
        }
    }
}

impl Ratio {
    /// Of two measurements per round: what slows a whole round down does not count.
    ///
    /// The interval needs no assumption about how the ratios are distributed (order statistics: how many of
    /// them lie below the true median is a toss of as many coins). Widest with fewer than six rounds.
    pub fn new(of: &[f64], to: &[f64]) -> Self {
        let mut ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len() as f64;
        let below = ((count - SIGMAS * count.sqrt()) / 2.0).floor().max(1.0) as usize - 1;
        let at = |rank: usize| ratios.get(rank).copied().unwrap_or(f64::NAN);
        Self { median: median(&ratios), least: at(below), most: at(ratios.len() - 1 - below) }
    }

    /// Of one measurement per round: its median as such.
    pub fn of(values: &[f64]) -> Self {
        Self::new(values, &vec![1.0; values.len()])
    }

    /// What it says about a limit that it must reach.
    pub fn at_least(self, limit: f64) -> Outcome {
        Self::outcome(self.median >= limit, self.most >= limit)
    }

    /// What it says about a limit that it must not exceed.
    pub fn at_most(self, limit: f64) -> Outcome {
        Self::outcome(self.median <= limit, self.least <= limit)
    }

    /// What is no number keeps to no limit.
    fn outcome(holds: bool, may_hold: bool) -> Outcome {
        match (holds, may_hold) {
            (true, _) => Outcome::Holds,
            (false, true) => Outcome::Undecided,
            (false, false) => Outcome::Fails,
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.median, self.least, self.most)
    }
}

/// What a single figure says about a limit that it must not exceed: it has no interval.
pub fn at_most(value: f64, limit: f64) -> Outcome {
    if value <= limit { Outcome::Holds } else { Outcome::Fails }
}

/// The middle one, or the mean of the two in the middle; no number of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle =
        &sorted[sorted.len().saturating_sub(1) / 2..(sorted.len() / 2 + 1).min(sorted.len())];
    middle.iter().sum::<f64>() / middle.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_has_the_ranks_of_the_tables() {
        // Tables of the sign test for 95 %: ranks 6 and 15 of 20, 10 and 21 of 30.
        for (count, least, most) in [(5, 1, 5), (20, 6, 15), (30, 10, 21)] {
            let values: Vec<f64> = (1..=count).map(f64::from).collect();
            let ratio = Ratio::of(&values);
            assert!(ratio.least <= f64::from(least) && ratio.most >= f64::from(most), "{ratio}");
            assert!(ratio.least >= f64::from(least - 1) && ratio.most <= f64::from(most + 1));
        }
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 9.0]), 4.0);
        assert_eq!(median(&[2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        let ratio = Ratio::new(&[9.0, 90.0, 900.0], &[10.0, 100.0, 1000.0]);
        assert_eq!(ratio, Ratio { median: 0.9, least: 0.9, most: 0.9 });
    }

    #[test]
    fn outcomes() {
        let ratio = Ratio { median: 0.98, least: 0.9, most: 1.1 };
        assert_eq!(ratio.at_least(0.97), Outcome::Holds);
        assert_eq!(ratio.at_least(1.0), Outcome::Undecided);
        assert_eq!(ratio.at_least(1.2), Outcome::Fails);
        assert_eq!(ratio.at_most(0.98), Outcome::Holds);
        assert_eq!(ratio.at_most(0.95), Outcome::Undecided);
        assert_eq!(ratio.at_most(0.8), Outcome::Fails);
        let nothing = Ratio { median: f64::NAN, least: f64::NAN, most: f64::NAN };
        assert_eq!(nothing.at_least(0.0), Outcome::Fails);
    }
}
