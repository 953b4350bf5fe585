//! The limits.

use tests::ratio::{Outcome, Ratio};
use tests::report::Verdict;

use super::figures::Figures;
use super::metric::{Better, Metric};
use super::way::{Contender, Family, Label, Path};

/// What a ratio must keep to.
struct Limit {
    path: Path,
    contender: Contender,
    to: Contender,
    metric: Metric,
    limit: f64,
}

const fn limit(path: Path, metric: Metric, to: Contender, limit: f64) -> Limit {
    Limit { path, contender: Contender::Podwire, to, metric, limit }
}

const LIMITS: [Limit; 11] = [
    limit(Path::SameNode, Metric::Tcp1, Contender::Bare, 0.97),
    Limit {
        contender: Contender::PodwireBigTcp,
        ..limit(Path::SameNode, Metric::Tcp1Auto, Contender::Bare, 1.2)
    },
    limit(Path::SameNode, Metric::TripTcpP50, Contender::Bare, 1.02),
    limit(Path::SameNode, Metric::TripTcpP99, Contender::Bare, 1.10),
    limit(Path::SameNode, Metric::Udp64, Contender::Bare, 0.95),
    limit(Path::SameNode, Metric::Connections, Contender::Bare, 0.97),
    limit(Path::Direct, Metric::Tcp1, Contender::Hosts, 0.90),
    limit(Path::Direct, Metric::TripTcpP50, Contender::Hosts, 1.10),
    limit(Path::Vxlan, Metric::Tcp1, Contender::BridgeVxlan, 1.1),
    limit(Path::Vxlan, Metric::Udp64, Contender::BridgeVxlan, 1.1),
    limit(Path::Vxlan, Metric::Udp1400, Contender::BridgeVxlan, 1.1),
];

/// Who must not be better anywhere.
const NEVER_WORSE: [(Path, Contender); 5] = [
    (Path::SameNode, Contender::Bridge),
    (Path::SameNode, Contender::Ptp),
    (Path::Vxlan, Contender::BridgeVxlan),
    (Path::VxlanWire, Contender::BridgeVxlan),
    (Path::DirectWire, Contender::Bridge),
];

/// With many entries to the same with ten. Of one pod that sends to many what the stacks of both ends lose is left out.
const BY_ENTRIES_MIN: f64 = 0.97;
const BY_ENTRIES: [Metric; 5] =
    [Metric::Tcp1, Metric::TripTcpP50, Metric::Connections, Metric::Udp64, Metric::PeersShare];

/// What must hold, of what was measured.
pub(super) fn verdicts(figures: &Figures) -> Vec<Verdict> {
    let failed = |text: &String| Verdict { text: text.clone(), outcome: Outcome::Fails };
    let mut verdicts: Vec<Verdict> = figures.failures().iter().map(failed).collect();
    for limit in LIMITS {
        verdicts.extend(Family::ALL.iter().filter_map(|family| judge(figures, &limit, *family)));
    }
    for (path, other) in NEVER_WORSE {
        verdicts.extend(
            Family::ALL.iter().filter_map(|family| never_worse(figures, path, *family, other)),
        );
    }
    for path in Path::ALL.into_iter().filter(|path| path.is_by_entries()) {
        for contender in [Contender::TenThousand, Contender::Nodes] {
            for metric in BY_ENTRIES {
                let limit = match metric.better() {
                    Better::More => BY_ENTRIES_MIN,
                    Better::Less => 1.0 / BY_ENTRIES_MIN,
                };
                let limit = Limit { path, contender, to: Contender::Ten, metric, limit };
                let both = Family::ALL.iter();
                verdicts.extend(both.filter_map(|family| judge(figures, &limit, *family)));
            }
        }
    }
    verdicts
}

fn judge(figures: &Figures, limit: &Limit, family: Family) -> Option<Verdict> {
    let Limit { path, contender, to, metric, limit } = *limit;
    let ratio = figures.ratio(Label { path, family, contender }, to, metric)?;
    let (outcome, word) = match metric.better() {
        Better::More => (ratio.at_least(limit), "at least"),
        Better::Less => (ratio.at_most(limit), "at most"),
    };
    let text = format!(
        "{}, {}: {}, {} to {}: {ratio}, {word} {limit:.2}",
        path.name(),
        family.name(),
        metric.name(),
        contender.name(),
        to.name()
    );
    Some(Verdict { text, outcome })
}

fn never_worse(figures: &Figures, path: Path, family: Family, to: Contender) -> Option<Verdict> {
    let label = Label { path, family, contender: Contender::Podwire };
    let compared: Vec<(Metric, Ratio)> = Metric::ALL
        .into_iter()
        .filter(|metric| metric.is_compared())
        .filter_map(|metric| Some((metric, figures.ratio(label, to, metric)?)))
        .collect();
    if compared.is_empty() {
        return None;
    }
    let better = compared.iter().filter(|(metric, ratio)| metric.is_better(*ratio)).count();
    let worse: Vec<String> = compared
        .iter()
        .filter(|(metric, ratio)| metric.is_worse(*ratio))
        .map(|(metric, ratio)| format!("{} {ratio}", metric.name()))
        .collect();
    let outcome = if worse.is_empty() { Outcome::Holds } else { Outcome::Fails };
    let mut text = format!(
        "{}, {}: Podwire to {}: {better} of {} better, {} worse",
        path.name(),
        family.name(),
        to.name(),
        compared.len(),
        worse.len()
    );
    if !worse.is_empty() {
        text += &format!(": {}", worse.join("; "));
    }
    Some(Verdict { text, outcome })
}

#[cfg(test)]
mod tests_of_limits {
    use super::*;

    fn figures(of: &[(Path, Contender, Metric, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (path, contender, metric, value) in of {
            let label = Label { path: *path, family: Family::Ipv4, contender: *contender };
            for _ in 0..9 {
                figures.add(label, *metric, *value);
            }
        }
        figures
    }

    #[test]
    fn each_limit_is_judged_in_its_direction() {
        for limit in LIMITS {
            let Limit { path, contender, to, metric, limit } = limit;
            for (factor, outcome) in [(1.01, true), (0.99, false)] {
                let factor = if metric.better() == Better::More { factor } else { 1.0 / factor };
                let own = (path, contender, metric, 100.0 * limit * factor);
                let verdicts = verdicts(&figures(&[own, (path, to, metric, 100.0)]));
                let text = format!("{contender:?} to {to:?}:").to_lowercase();
                let found = verdicts.iter().find(|v| v.text.contains(" at ")).expect(&text);
                assert_eq!(found.outcome == Outcome::Holds, outcome, "{}", found.text);
            }
        }
    }

    #[test]
    fn others_must_not_be_better_anywhere() {
        let row = |contender, metric, value| (Path::SameNode, contender, metric, value);
        let (own, other) = (Contender::Podwire, Contender::Bridge);
        let (rate, trip) = (Metric::Iperf16, Metric::TripUdpP90);
        let good = [(own, 2.0, 1.0), (other, 1.0, 2.0)];
        let bad = [(own, 2.0, 2.0), (other, 1.0, 1.0)];
        for (values, outcome) in [(good, Outcome::Holds), (bad, Outcome::Fails)] {
            let rows: Vec<_> = values
                .iter()
                .flat_map(|(who, a, b)| [row(*who, rate, *a), row(*who, trip, *b)])
                .collect();
            let verdicts = verdicts(&figures(&rows));
            assert_eq!(verdicts.len(), 1);
            assert_eq!(verdicts[0].outcome, outcome, "{}", verdicts[0].text);
        }
    }

    #[test]
    fn what_does_not_work_fails_and_has_no_ratio() {
        let row = |contender| (Path::SameNode, contender, Metric::Tcp1, 1.0);
        let mut figures = figures(&[row(Contender::Podwire), row(Contender::Bare)]);
        assert_eq!(verdicts(&figures).len(), 1);
        let label =
            Label { path: Path::SameNode, family: Family::Ipv4, contender: Contender::Bare };
        figures.add(label, Metric::Tcp1, 1.0);
        figures.failed("same node: nobody answers".into());
        let verdicts = verdicts(&figures);
        assert_eq!(verdicts.len(), 1, "one of them has missed a round");
        assert_eq!(verdicts[0].outcome, Outcome::Fails);
        assert_eq!(verdicts[0].text, "same node: nobody answers");
    }

    #[test]
    fn nothing_measured_is_nothing_judged() {
        assert!(verdicts(&Figures::default()).is_empty());
    }
}
