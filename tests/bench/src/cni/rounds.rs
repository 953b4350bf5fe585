//! Rounds in which each contender has its turn.

use anyhow::{Context as _, Result};
use tests::namespace::Namespace;
use tests::report::progress;

use super::call::millis;
use super::contender::Contender;
use super::figures::Figures;
use super::rest;
use crate::common::order;

/// Rounds that only warm up.
const WARM_UP: usize = 2;

/// A contender and the pod that comes and goes.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    contender: &'a Contender,
    pod: &'a Namespace,
}

impl<'a> Subject<'a> {
    pub(super) fn new(contender: &'a Contender, pod: &'a Namespace) -> Self {
        Self { contender, pod }
    }
}

/// Measures ADD, CHECK and DEL of each in turn, every other round in reverse order. `beside` runs once per
/// round, too, and is told whether the round counts.
///
/// # Errors
/// When a call fails.
pub(super) fn rounds(
    what: &'static str,
    subjects: &[Subject<'_>],
    count: usize,
    mut beside: impl FnMut(bool) -> Result<()>,
) -> Result<Vec<Figures>> {
    let mut figures = vec![Figures::default(); subjects.len()];
    let bar = progress(what, (count + WARM_UP) as u64);
    for round in 0..count + WARM_UP {
        let is_counted = round >= WARM_UP;
        for at in order(subjects.len(), round) {
            let subject = &subjects[at];
            bar.set_message(subject.contender.name);
            let mut unused = Figures::default();
            let figures = if is_counted { &mut figures[at] } else { &mut unused };
            turn(subject, figures).with_context(|| format!("{what}, round {round}"))?;
        }
        beside(is_counted)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(figures)
}

fn turn(subject: &Subject<'_>, figures: &mut Figures) -> Result<()> {
    let Subject { contender, pod } = subject;
    rest::wait()?;
    let stolen = rest::stolen()?;
    let (result, add) = contender.add(pod)?;
    // The kernel counts that at its next tick.
    rest::wait()?;
    if rest::stolen()? == stolen {
        figures.add_undisturbed.0.push(millis(add.wall));
    }
    let check = contender.check(pod, &result)?;
    rest::wait()?;
    let del = contender.del(pod)?;
    figures.add.0.push(millis(add.wall));
    figures.add_cpu.0.push(millis(add.cpu));
    figures.check.0.push(millis(check.wall));
    figures.del.0.push(millis(del.wall));
    figures.del_cpu.0.push(millis(del.cpu));
    Ok(())
}
