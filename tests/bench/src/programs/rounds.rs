//! Rounds in which each kind of packet has its turn, beside the empty program.

use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result, ensure};
use tests::bpf::test_run;
use tests::node::Node;
use tests::processor;
use tests::report::progress;

use super::case::Case;
use super::stage::{Memory, Stage};
use super::{Figure, Manner, Size};
use crate::common::order;

/// Measures everything on the calling thread, in the node's namespace and on one processor: each remembers flows of
/// its own.
///
/// # Errors
/// When a program does something else with a packet than it should.
pub(super) fn all(stage: &Stage, node: &Node, size: Size) -> Result<Vec<Figure>> {
    processor::stay()?;
    let mut memory = Memory::of(node)?;
    let mut turns = turns(stage)?;
    let bar = progress("programs", (turns.len() * (size.rounds + 1)) as u64);
    for turn in &mut turns {
        turn.warm_up(node, &mut memory, size)?;
        bar.inc(1);
    }
    for round in 0..size.rounds {
        for at in order(turns.len(), round) {
            turns[at].round(&mut memory, size)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(turns.into_iter().map(|turn| turn.figure).collect())
}

/// One kind of packet in one manner.
struct Turn<'a> {
    case: &'a Case,
    /// Of one call.
    runs: u32,
    /// What is measured, and what is subtracted.
    programs: [BorrowedFd<'a>; 2],
    figure: Figure,
}

fn turns(stage: &Stage) -> Result<Vec<Turn<'_>>> {
    let mut turns = Vec::new();
    for case in &stage.cases {
        for manner in Manner::ALL {
            let Some(runs) = case.runs(manner) else { continue };
            let Case { program, what, traffic, .. } = *case;
            let figure =
                Figure { program, what, traffic, manner, rounds: Vec::new(), empty: Vec::new() };
            turns.push(Turn { case, runs, programs: stage.programs_for(case)?, figure });
        }
    }
    Ok(turns)
}

impl Turn<'_> {
    /// Calls per round.
    fn calls(&self, size: Size) -> u32 {
        match self.figure.manner {
            Manner::InARow => size.packets.div_ceil(self.runs),
            Manner::Alone | Manner::First => size.alone,
        }
    }

    /// A round that does not count, and shows that every packet took the way it is measured for.
    fn warm_up(&self, node: &Node, memory: &mut Memory, size: Size) -> Result<()> {
        let Case { program, what, traffic, counter, .. } = self.case;
        let name = || format!("{program}, {what}, {traffic}, {}", self.figure.manner.name());
        let Some(counter) = counter else {
            return self.measure(memory, size).map(drop).with_context(name);
        };
        let before = node.counter(counter)?;
        self.measure(memory, size).with_context(name)?;
        let counted = node.counter(counter)? - before;
        let sent = u64::from(self.calls(size) * self.runs);
        // Others may be counted there, too: the node has a network.
        ensure!(counted >= sent, "{}: {counted} of {sent} packets are {counter}", name());
        Ok(())
    }

    fn round(&mut self, memory: &mut Memory, size: Size) -> Result<()> {
        let [own, empty] = self.measure(memory, size)?;
        self.figure.rounds.push(own - empty);
        self.figure.empty.push(empty);
        Ok(())
    }

    /// Nanoseconds per packet of both programs, which are called in turn.
    fn measure(&self, memory: &mut Memory, size: Size) -> Result<[f64; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..self.calls(size) {
            for ((program, times), is_measured) in
                self.programs.iter().zip(&mut times).zip([true, false])
            {
                if self.figure.manner == Manner::First {
                    memory.forget()?;
                }
                let ran = test_run(*program, self.case.ifindex, &self.case.packet, self.runs)?;
                let (action, wanted) = (ran.action, self.case.action);
                ensure!(!is_measured || action == wanted, "verdict {action}, not {wanted}");
                times.push(f64::from(ran.nanoseconds));
            }
        }
        Ok(times.map(middle))
    }
}

/// The mean of the middle half: calls are told in whole nanoseconds, and some are interrupted.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let half = &values[quarter..values.len() - quarter];
    half.iter().sum::<f64>() / half.len() as f64
}

#[cfg(test)]
mod tests_of_rounds {
    use super::*;

    #[test]
    fn the_middle_half_counts() {
        assert_eq!(middle(vec![900.0, 1.0, 10.0, 11.0]), 10.5);
        assert_eq!(middle(vec![7.0]), 7.0);
        assert!(middle(Vec::new()).is_nan());
    }
}
