//! Many ADDs at the same time.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use tests::namespace::Namespace;
use tests::report::progress;
use tests::series::Series;

use super::Size;
use super::call::millis;
use super::contender::Contender;
use super::rest;
use super::stage::Stage;

/// What a crowd took.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd {
    /// Each ADD.
    pub(super) each: Series,
    /// From the first start to the last end: one figure per round.
    pub(super) all: Series,
    pub(super) all_del: Series,
}

/// Lets each contender add and delete a crowd, in turn.
///
/// # Errors
/// When a call fails.
pub(super) fn crowds(stage: &Stage, contenders: &[&Contender], size: Size) -> Result<Vec<Crowd>> {
    let pods = stage.pods("crowd", size.crowd)?;
    let mut crowds = vec![Crowd::default(); contenders.len()];
    let bar = progress("in parallel", (size.crowd_rounds * contenders.len()) as u64);
    for _ in 0..size.crowd_rounds {
        for (contender, crowd) in contenders.iter().zip(&mut crowds) {
            bar.set_message(contender.name);
            rest::wait()?;
            let (each, all) = at_once(&pods, |pod| contender.add(pod).map(drop))?;
            crowd.each.0.extend(each);
            crowd.all.0.push(all);
            rest::wait()?;
            let (_, all) = at_once(&pods, |pod| contender.del(pod).map(drop))?;
            crowd.all_del.0.push(all);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    super::stage::remove(pods);
    Ok(crowds)
}

/// Does something with all pods at the same time; milliseconds of each, and of all together.
fn at_once(
    pods: &[Namespace],
    work: impl Fn(&Namespace) -> Result<()> + Sync,
) -> Result<(Vec<f64>, f64)> {
    let barrier = Barrier::new(pods.len() + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|pod| {
                scope.spawn(|| {
                    barrier.wait();
                    let start = Instant::now();
                    work(pod).map(|()| millis(start.elapsed()))
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let each: Vec<Result<f64>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        let all = millis(start.elapsed());
        Ok((each.into_iter().collect::<Result<_>>()?, all))
    })
}
