//! The CNI plugin: time of ADD and DEL, and memory.

mod call;
mod contender;
mod figures;
mod judge;
mod memory;
mod parallel;
mod rest;
mod rounds;
mod show;
mod stage;
mod yardstick;

use anyhow::Result;
use tests::memory::of_process;
use tests::report;

use self::figures::Figures;
use self::memory::Memory;
use self::parallel::Crowd;
use self::rounds::{Subject, rounds};
use self::stage::Stage;
use self::yardstick::Bare;
use crate::common::Options;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Rounds that count; some more warm up.
    rounds: usize,
    /// Pods of each contender on its node.
    some: usize,
    /// Pods on a large node.
    many: usize,
    /// ADDs at the same time.
    crowd: usize,
    crowd_rounds: usize,
}

const FULL: Size = Size { rounds: 100, some: 250, many: 1000, crowd: 50, crowd_rounds: 5 };
const QUICK: Size = Size { rounds: 12, some: 25, many: 100, crowd: 10, crowd_rounds: 2 };

/// All that was measured. Contenders stand in the order of [`Stage::contenders`].
struct Results {
    size: Size,
    names: Vec<&'static str>,
    /// On empty nodes, and on those with some pods.
    empty: Vec<Figures>,
    crowded: Vec<Figures>,
    /// Podwire alone, with no, some and many pods on the node.
    growth: Vec<Figures>,
    crowd: Vec<Crowd>,
    bare: Bare,
    memory: Memory,
    /// ADDs of other plugins that failed and were tried again.
    failures: Vec<u32>,
}

/// Measures, shows, judges; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let size = if options.quick { QUICK } else { FULL };
    let results = measure(size)?;
    show::tables(&results);
    let verdicts = judge::verdicts(&results);
    options.write(|| show::document(&results, &verdicts))?;
    Ok(report::verdicts(&verdicts))
}

fn measure(size: Size) -> Result<Results> {
    let stage = Stage::new(size)?;
    let contenders = stage.contenders();
    let first = &stage.podwires[0];
    let mut bare = Bare::default();

    let subjects: Vec<Subject<'_>> =
        contenders.iter().zip(&stage.visitors).map(|(c, pod)| Subject::new(c, pod)).collect();
    let empty = rounds("no pods", &subjects, size.rounds, |is_counted| {
        let round = stage.yardstick.round(first)?;
        if is_counted {
            bare.add(&round);
        }
        Ok(())
    })?;

    let mut pods = Vec::new();
    for contender in stage.contenders_for_pods() {
        pods.extend(stage.populate(contender, size.some)?);
    }
    let agent = of_process(stage.cluster.node(2).agent_pid()?)?;
    let with_pods = stage.contenders_for_pods();
    let subjects: Vec<Subject<'_>> =
        with_pods.iter().zip(&stage.visitors).map(|(c, pod)| Subject::new(c, pod)).collect();
    let crowded = rounds("some pods", &subjects, size.rounds, |_| Ok(()))?;

    let crowd = parallel::crowds(&stage, &contenders, size)?;

    let large = &stage.podwires[2];
    pods.extend(stage.populate(large, size.many)?);
    let subjects: Vec<Subject<'_>> =
        stage.podwires.iter().map(|c| Subject::new(c, &stage.visitors[0])).collect();
    let growth = rounds("more pods", &subjects, size.rounds, |_| Ok(()))?;

    let (bytes, is_static) = memory::binary(&first.plugin)?;
    let peak = memory::peak(first, &stage.visitors[0])?;
    let memory = Memory { rss: agent.resident, anonymous: agent.anonymous, bytes, is_static, peak };
    let failures = with_pods.iter().zip(&contenders).map(|(a, b)| a.failures() + b.failures());
    let failures = failures.collect();
    let names = contenders.iter().map(|contender| contender.name).collect();
    stage::remove(pods);
    Ok(Results { size, names, empty, crowded, growth, crowd, bare, memory, failures })
}
