//! The limits.

use tests::memory::MIB;
use tests::ratio::{Outcome, Ratio, at_most};
use tests::report::Verdict;
use tests::series::Series;

use super::Results;
use super::figures::Figures;

/// Milliseconds of ADD, on a quiet machine.
const ADD_P50_MAX: f64 = 3.0;
const ADD_P99_MAX: f64 = 10.0;
/// `bridge` with `host-local` takes so many times Podwire's ADD.
const FASTER_MIN: f64 = 3.0;
/// ADD on a node with many pods to ADD on an empty one.
const GROWTH_MAX: f64 = 1.2;
const DEL_MAX: f64 = 1.0;

const AGENT_MIB_MAX: f64 = 12.0;
const PLUGIN_MB_MAX: f64 = 3.0;
const PEAK_MIB_MAX: f64 = 4.0;

/// What must hold.
pub(super) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = speed(results);
    verdicts.extend(memory(results));
    verdicts
}

fn speed(results: &Results) -> Vec<Verdict> {
    let (some, many) = (results.size.some, results.size.many);
    let (Some(podwire), Some(bridge)) = (results.empty.first(), results.empty.get(1)) else {
        return Vec::new();
    };
    let p50 = Ratio::of(&podwire.add.0);
    let mut verdicts = vec![
        Verdict {
            text: format!("ADD p50: {p50} ms, at most {ADD_P50_MAX} on a quiet machine"),
            outcome: p50.at_most(ADD_P50_MAX),
        },
        tail(podwire),
        faster("no pods", podwire, bridge),
    ];
    if let (Some(podwire), Some(bridge)) = (results.crowded.first(), results.crowded.get(1)) {
        verdicts.push(faster(&format!("{some} pods each"), podwire, bridge));
        verdicts.push(del(&format!("{some} pods each"), podwire, bridge));
    }
    verdicts.push(del("no pods", podwire, bridge));
    if let [none, .., full] = results.growth.as_slice() {
        let ratio = ratio(&full.add, &none.add);
        verdicts.push(Verdict {
            text: format!("ADD with {many} pods to ADD with none: {ratio}, at most {GROWTH_MAX}"),
            outcome: ratio.at_most(GROWTH_MAX),
        });
    }
    verdicts
}

/// On a machine whose host gives its processors to others now and then, a hundredth of all calls says how often.
fn tail(podwire: &Figures) -> Verdict {
    let Figures { add, add_undisturbed, .. } = podwire;
    let (count, all) = (add_undisturbed.0.len(), add.0.len());
    let judged = if count * 2 > all { add_undisturbed } else { add };
    let text = format!(
        "ADD p99: {:.2} ms of all {all}, {:.2} of {count} during which the host took no processor, at most \
         {ADD_P99_MAX} on a quiet machine",
        add.p99(),
        add_undisturbed.p99()
    );
    Verdict { text, outcome: at_most(judged.p99(), ADD_P99_MAX) }
}

fn faster(when: &str, podwire: &Figures, bridge: &Figures) -> Verdict {
    let ratio = ratio(&bridge.add, &podwire.add);
    Verdict {
        text: format!("ADD of bridge to ours, {when}: {ratio}, at least {FASTER_MIN}"),
        outcome: ratio.at_least(FASTER_MIN),
    }
}

fn del(when: &str, podwire: &Figures, bridge: &Figures) -> Verdict {
    let ratio = ratio(&podwire.del, &bridge.del);
    Verdict {
        text: format!("DEL to that of bridge, {when}: {ratio}, at most {DEL_MAX}"),
        outcome: ratio.at_most(DEL_MAX),
    }
}

fn memory(results: &Results) -> Vec<Verdict> {
    let memory = &results.memory;
    let (rss, anonymous) = (memory.rss as f64 / MIB, memory.anonymous as f64 / MIB);
    let megabytes = memory.bytes as f64 / 1e6;
    let peak = memory.peak as f64 / MIB;
    let verdict = |text, value, limit| Verdict { text, outcome: at_most(value, limit) };
    vec![
        verdict(
            format!(
                "agent with {} pods: {rss:.1} MiB resident, at most {AGENT_MIB_MAX} \
                 ({anonymous:.1} anonymous)",
                results.size.some
            ),
            rss,
            AGENT_MIB_MAX,
        ),
        verdict(
            format!("plugin: {megabytes:.2} MB, at most {PLUGIN_MB_MAX}"),
            megabytes,
            PLUGIN_MB_MAX,
        ),
        Verdict {
            text: format!(
                "plugin linked statically: {}",
                if memory.is_static { "yes" } else { "no" }
            ),
            outcome: if memory.is_static { Outcome::Holds } else { Outcome::Fails },
        },
        verdict(
            format!("plugin, of all verbs: {peak:.2} MiB resident, at most {PEAK_MIB_MAX}"),
            peak,
            PEAK_MIB_MAX,
        ),
    ]
}

/// How many times the other each round took.
pub(super) fn ratio(of: &Series, to: &Series) -> Ratio {
    Ratio::new(&of.0, &to.0)
}

#[cfg(test)]
mod tests_of_limits {
    use super::*;
    use crate::cni::{FULL, Memory, yardstick::Bare};

    fn figures(add: f64, del: f64) -> Figures {
        let series = |value: f64| Series(vec![value; 20]);
        Figures { add: series(add), del: series(del), ..Figures::default() }
    }

    fn results(podwire: [f64; 2], bridge: [f64; 2], many: f64, megabytes: u64) -> Results {
        let both = vec![figures(podwire[0], podwire[1]), figures(bridge[0], bridge[1])];
        let [none, full] = [podwire[0], many].map(|add| figures(add, 1.0));
        Results {
            size: FULL,
            names: vec!["podwire", "bridge"],
            empty: both.clone(),
            crowded: both,
            growth: vec![none, full],
            crowd: Vec::new(),
            bare: Bare::default(),
            memory: Memory {
                rss: 1 << 20,
                anonymous: 1 << 19,
                bytes: megabytes * 1_000_000,
                is_static: true,
                peak: 1 << 20,
            },
            failures: vec![0, 0],
        }
    }

    fn failed(results: &Results) -> usize {
        verdicts(results).iter().filter(|verdict| verdict.outcome == Outcome::Fails).count()
    }

    #[test]
    fn each_limit_is_judged() {
        assert_eq!(failed(&results([2.0, 20.0], [8.0, 21.0], 2.1, 2)), 0);
        // p50, and the ratio on empty and on crowded nodes.
        assert_eq!(failed(&results([4.0, 20.0], [8.0, 21.0], 4.1, 2)), 3);
        assert_eq!(failed(&results([2.0, 22.0], [8.0, 21.0], 2.1, 2)), 2, "DEL");
        assert_eq!(failed(&results([2.0, 20.0], [8.0, 21.0], 2.5, 2)), 1, "growth");
        assert_eq!(failed(&results([2.0, 20.0], [8.0, 21.0], 2.1, 4)), 1, "size");
    }
}
