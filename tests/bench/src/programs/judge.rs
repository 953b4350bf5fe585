//! The limits.

use tests::ratio::{Outcome, Ratio};
use tests::report::Verdict;

use super::case::is_ours;
use super::{Figure, Manner};

/// Nanoseconds per packet of a known flow.
const MOST: f64 = 100.0;
const AIM: f64 = 60.0;

/// What must hold: of each way the slowest kind of packet, in a row where that can be measured. The first packet of
/// a flow may take longer.
pub(super) fn verdicts(figures: &[Figure]) -> Vec<Verdict> {
    let mut judged: Vec<&Figure> = Vec::new();
    for figure in figures.iter().filter(|figure| is_judged(figure, figures)) {
        let is_same =
            |other: &&mut &Figure| (other.program, other.what) == (figure.program, figure.what);
        match judged.iter_mut().find(is_same) {
            Some(slowest) if time(slowest) < time(figure) => *slowest = figure,
            Some(_) => {}
            None => judged.push(figure),
        }
    }
    judged.into_iter().map(verdict).collect()
}

fn is_judged(figure: &Figure, figures: &[Figure]) -> bool {
    if !is_ours(figure.program) {
        return false;
    }
    let of_way = |other: &&Figure| (other.program, other.what) == (figure.program, figure.what);
    let in_a_row = |other: &Figure| other.manner == Manner::InARow;
    match figure.manner {
        Manner::InARow => true,
        Manner::Alone => !figures.iter().filter(of_way).any(in_a_row),
        Manner::First => false,
    }
}

fn time(figure: &Figure) -> f64 {
    Ratio::of(&figure.rounds).median
}

fn verdict(figure: &Figure) -> Verdict {
    let Figure { program, what, traffic, manner, .. } = figure;
    let time = Ratio::of(&figure.rounds);
    let aim = if time.at_most(AIM) == Outcome::Holds { "reached" } else { "missed" };
    Verdict {
        text: format!(
            "{program}, {what} ({traffic}, {}): {:.0} ns ({:.0} to {:.0}), at most {MOST}; the aim of {AIM} is {aim}",
            manner.name(),
            time.median,
            time.least,
            time.most
        ),
        outcome: time.at_most(MOST),
    }
}

#[cfg(test)]
mod tests_of_limits {
    use super::*;

    fn figure(what: &'static str, traffic: &'static str, manner: Manner, time: f64) -> Figure {
        let rounds = vec![time; 9];
        Figure { program: "pw_from_pod", what, traffic, manner, rounds, empty: vec![30.0; 9] }
    }

    #[test]
    fn each_way_is_judged_by_its_slowest_packets_in_a_row() {
        let figures = [
            figure("here", "IPv4 TCP", Manner::InARow, 40.0),
            figure("here", "IPv4 TCP", Manner::Alone, 140.0),
            figure("here", "IPv4 TCP", Manner::First, 340.0),
            figure("here", "IPv6 UDP", Manner::InARow, 70.0),
            figure("far", "IPv4 TCP", Manner::Alone, 120.0),
            figure("far", "IPv4 TCP", Manner::First, 220.0),
        ];
        let [here, far] = <[Verdict; 2]>::try_from(verdicts(&figures)).expect("two ways");
        assert_eq!(here.outcome, Outcome::Holds);
        assert!(here.text.contains("here (IPv6 UDP, in a row): 70 ns"), "{}", here.text);
        assert!(here.text.ends_with("the aim of 60 is missed"), "{}", here.text);
        assert_eq!(far.outcome, Outcome::Fails);
        assert!(far.text.contains("far (IPv4 TCP, alone): 120 ns"), "{}", far.text);
    }
}
