//! What got worse since an earlier run.
//!
//! Values of two runs are not comparable, as machines differ from hour to hour; their ratios to the yardstick of
//! the same run are.

use tests::ratio::{Outcome, Ratio};
use tests::report::Verdict;

use super::figures::Figures;
use super::metric::{Better, Metric};
use super::way::Label;
use crate::common::Compared;

/// What differs by less is nobody's concern.
const DIFFERENCE_MIN: f64 = 0.03;
/// Likewise of what is compared without a yardstick of the same run.
const DIFFERENCE_MIN_OF_PARTS: f64 = 0.10;

/// Compares all that both runs measured of Podwire.
pub(super) fn verdicts(now: &Figures, before: &Figures) -> Vec<Verdict> {
    let (mut verdicts, of_parts) = of_parts(&now.compared, &before.compared);
    let (of_ways, compared) = of_ways(now, before);
    verdicts.extend(of_ways);
    if verdicts.is_empty() {
        let compared = compared + of_parts;
        let text = format!("nothing of {compared} figures got worse since the earlier run");
        let outcome = if compared > 0 { Outcome::Holds } else { Outcome::Fails };
        verdicts.push(Verdict { text, outcome });
    }
    verdicts
}

/// What got worse, and how many were compared.
fn of_parts(now: &[Compared], before: &[Compared]) -> (Vec<Verdict>, usize) {
    let (mut verdicts, mut compared) = (Vec::new(), 0);
    for own in now {
        let Some(other) = before.iter().find(|other| other.what == own.what) else { continue };
        compared += 1;
        let (now, before) = (Ratio::of(&own.rounds), Ratio::of(&other.rounds));
        let limit = before.median * (1.0 + DIFFERENCE_MIN_OF_PARTS);
        if now.least > before.most && now.median > limit {
            let text = format!("got worse: {}: {now}, before {before}", own.what);
            verdicts.push(Verdict { text, outcome: Outcome::Fails });
        }
    }
    (verdicts, compared)
}

fn of_ways(now: &Figures, before: &Figures) -> (Vec<Verdict>, usize) {
    let (mut verdicts, mut compared) = (Vec::new(), 0);
    for label in now.labels().filter(|label| label.contender.is_podwire()) {
        for metric in Metric::ALL.into_iter().filter(|metric| metric.is_compared()) {
            let yardstick = label.path.yardstick();
            let both =
                now.ratio(label, yardstick, metric).zip(before.ratio(label, yardstick, metric));
            let Some((now, before)) = both else { continue };
            compared += 1;
            if got_worse(metric, now, before) {
                let text = worse(label, metric, now, before);
                verdicts.push(Verdict { text, outcome: Outcome::Fails });
            }
        }
    }
    (verdicts, compared)
}

/// Beyond both intervals, and by enough to matter.
fn got_worse(metric: Metric, now: Ratio, before: Ratio) -> bool {
    match metric.better() {
        Better::More => {
            now.most < before.least && now.median < before.median * (1.0 - DIFFERENCE_MIN)
        }
        Better::Less => {
            now.least > before.most && now.median > before.median * (1.0 + DIFFERENCE_MIN)
        }
    }
}

fn worse(label: Label, metric: Metric, now: Ratio, before: Ratio) -> String {
    format!(
        "got worse: {}, {}: {} to {}: {now}, before {before}",
        label.path.name(),
        label.family.name(),
        metric.name(),
        label.path.yardstick().name()
    )
}

#[cfg(test)]
mod tests_of_comparison {
    use super::*;
    use crate::net::way::{Contender, Family, Path};

    fn run(own: f64) -> Figures {
        let mut figures = Figures::default();
        let label =
            Label { path: Path::SameNode, family: Family::Ipv4, contender: Contender::Podwire };
        for _ in 0..9 {
            figures.add(label, Metric::TripTcpP50, own);
            figures.add(label.of(Contender::Bare), Metric::TripTcpP50, 10.0);
        }
        let compared = Compared { what: "a program".to_owned(), rounds: vec![own; 9] };
        figures.compared.push(compared);
        figures
    }

    #[test]
    fn what_got_worse_is_named() {
        let verdicts_of = |now, before| verdicts(&run(now), &run(before));
        assert_eq!(verdicts_of(10.0, 10.0)[0].outcome, Outcome::Holds);
        assert_eq!(verdicts_of(9.0, 10.0)[0].outcome, Outcome::Holds);
        let worse = verdicts_of(11.5, 10.0);
        assert!(worse.iter().all(|verdict| verdict.outcome == Outcome::Fails));
        for (verdict, what) in worse.iter().zip(["a program", "TCP round trip p50"]) {
            assert!(verdict.text.contains(what), "{}", verdict.text);
        }
        assert_eq!(verdicts_of(10.8, 10.0).len(), 1, "a program by too little");
        assert_eq!(verdicts_of(10.2, 10.0)[0].outcome, Outcome::Holds, "too little to matter");
    }

    #[test]
    fn a_run_with_nothing_in_common_is_no_success() {
        assert_eq!(verdicts(&run(1.0), &Figures::default())[0].outcome, Outcome::Fails);
    }
}
