//! Rounds in which each way has its turn.

use std::collections::BTreeSet;
use std::thread;

use anyhow::Result;
use tests::processor::stay;
use tests::report::progress;

use super::figures::Figures;
use super::load::Load;
use super::way::{Label, Way};
use crate::common::order;

/// What is measured how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) loads: &'static [Load],
    /// Those that count.
    pub(super) rounds: usize,
    /// Whether a round more comes before, to warm up.
    pub(super) is_first: bool,
    /// Whether both ends are on one processor: what is measured then is the work that a way makes.
    pub(super) on_one_processor: bool,
}

/// Measures each way with each load. All who go the same way have their turns one after the other, every other
/// time in reverse order: what slows the machine for some seconds slows all of them.
///
/// What does not work is said in `figures`, and has no further turns: the others go on.
///
/// # Errors
/// When the processor cannot be chosen.
pub(super) fn rounds(
    what: &'static str,
    ways: &[Way],
    plan: &Plan,
    figures: &mut Figures,
) -> Result<()> {
    let is_in = |way: &&Way| plan.on_one_processor || !way.label.is_for_orientation();
    let mut ways: Vec<&Way> = ways.iter().filter(is_in).collect();
    ways.sort_by_key(|way| way.label);
    let numbers = usize::from(!plan.is_first)..=plan.rounds;
    let bar = progress(what, (numbers.clone().count() * ways.len()) as u64);
    // Of its own, so that the processor of others is not chosen, too.
    let result = thread::scope(|scope| {
        let work = scope.spawn(|| -> Result<()> {
            if plan.on_one_processor {
                stay()?;
            }
            let mut broken = BTreeSet::new();
            for round in numbers {
                for group in ways.chunk_by(|a, b| is_compared(a.label, b.label)) {
                    bar.set_message(group.first().map_or("", |way| way.label.path.name()));
                    compare(group, plan, round, figures, &mut broken);
                    bar.inc(group.len() as u64);
                }
            }
            Ok(())
        });
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    bar.finish_and_clear();
    result
}

/// Whether they are beside each other in the report.
fn is_compared(a: Label, b: Label) -> bool {
    (a.path, a.family) == (b.path, b.family)
}

/// One round of a group; the first one warms up. `broken` has what does not work, by the load's place in the plan.
fn compare(
    group: &[&Way],
    plan: &Plan,
    round: usize,
    figures: &mut Figures,
    broken: &mut BTreeSet<(Label, usize)>,
) {
    for (number, load) in plan.loads.iter().enumerate() {
        for at in order(group.len(), round) {
            let way = group[at];
            if broken.contains(&(way.label, number)) {
                continue;
            }
            match load.run(way) {
                Ok(measured) if round > 0 => {
                    for (metric, value) in measured {
                        figures.add(way.label, metric, value);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    let Label { path, family, contender } = way.label;
                    let names = [path.name(), family.name(), contender.name()].join(", ");
                    figures.failed(format!("{names}, {load:?}, round {round}: {error:#}"));
                    broken.insert((way.label, number));
                }
            }
        }
    }
}
