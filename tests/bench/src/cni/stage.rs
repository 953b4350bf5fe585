//! Nodes, contenders and pods.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use tests::cluster::{Cluster, Mode};
use tests::namespace::Namespace;
use tests::report::progress;

use super::Size;
use super::contender::Contender;
use super::yardstick::Yardstick;

/// Namespaces and pods are made by so many at a time.
const AT_ONCE: usize = 4;

/// Names of the reference plugins.
const BRIDGE: &str = "bridge + host-local";
const PTP: &str = "ptp + host-local";

/// Everything that is measured.
pub(super) struct Stage {
    /// Podwire on three nodes: one stays empty, one gets some pods, one many.
    pub(super) podwires: Vec<Contender>,
    /// Each reference plugin on an empty node, and on one that gets some pods.
    references: Vec<[Contender; 2]>,
    /// Pods that come and go, one per contender.
    pub(super) visitors: Vec<Namespace>,
    pub(super) yardstick: Yardstick,
    pub(super) cluster: Cluster,
}

impl Stage {
    /// Makes nodes and agents.
    ///
    /// # Errors
    /// When something cannot be made.
    pub(super) fn new(size: Size) -> Result<Self> {
        println!(
            "ADD and DEL from start to end of the plugin's process; both families; {} rounds; the \
             address check (DAD) is off for all. Each call waits until the machine is at rest: processors \
             idle for 0.1 s.",
            size.rounds
        );
        let bar = progress("nodes and agents", 3);
        let cluster = Cluster::builder(Mode::Direct).of_bench().nodes(3).large_pools().build()?;
        bar.inc(1);
        let name = |what: &str| format!("{}-{what}", cluster.run().name());
        let podwires =
            cluster.nodes().iter().map(|node| Contender::podwire(node)).collect::<Result<_>>()?;
        let mut references = Vec::new();
        for (at, plugin) in [BRIDGE, PTP].into_iter().enumerate() {
            let make = |what: &str, net: usize| {
                let short = format!("{}{what}", plugin.split(' ').next().unwrap_or_default());
                let host = Namespace::new(&name(&short), false)?;
                let data = cluster.run().directory().join(&short);
                let net = u8::try_from(net)?;
                anyhow::Ok(Contender::reference(plugin, short, host, &data, net))
            };
            references.push([make("-empty", 90 + 2 * at)?, make("-some", 91 + 2 * at)?]);
        }
        bar.inc(1);
        let visitors = (0..3).map(|n| Namespace::new(&name(&format!("visitor{n}")), false));
        let visitors = visitors.collect::<Result<_>>()?;
        let bpffs = cluster.node(1).bpffs.clone();
        let yardstick = Yardstick::new(&name("bare"), bpffs)?;
        bar.finish_and_clear();
        Ok(Self { podwires, references, visitors, yardstick, cluster })
    }

    /// Contenders on empty nodes, Podwire first.
    pub(super) fn contenders(&self) -> Vec<&Contender> {
        let others = self.references.iter().map(|[empty, _]| empty);
        std::iter::once(&self.podwires[0]).chain(others).collect()
    }

    /// The same on the nodes that get some pods.
    pub(super) fn contenders_for_pods(&self) -> Vec<&Contender> {
        let others = self.references.iter().map(|[_, some]| some);
        std::iter::once(&self.podwires[1]).chain(others).collect()
    }

    /// Makes namespaces of pods.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(super) fn pods(&self, what: &str, count: usize) -> Result<Vec<Namespace>> {
        let name = |n: usize| format!("{}-{what}{n}", self.cluster.run().name());
        by_some("namespaces", count, |n| Namespace::new(&name(n), false))
    }

    /// Gives a contender's node pods.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(super) fn populate(&self, contender: &Contender, count: usize) -> Result<Vec<Namespace>> {
        let pods = self.pods(&format!("{}-", contender.label), count)?;
        by_some("pods", count, |n| contender.add(&pods[n]).map(drop))?;
        Ok(pods)
    }
}

/// Removes namespaces of pods, some at a time.
pub(super) fn remove(pods: Vec<Namespace>) {
    let count = pods.len();
    let pods: Vec<_> = pods.into_iter().map(|pod| Mutex::new(Some(pod))).collect();
    let take = |n: usize| {
        pods[n].lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    };
    let _ = by_some("removing pods", count, take);
}

/// Does `work` for 0 to `count`, some at a time; the results in order.
fn by_some<T: Send>(
    what: &'static str,
    count: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let bar = progress(what, count as u64);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let result = work(n);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests_of_stage {
    use super::*;

    #[test]
    fn work_by_some_keeps_the_order_and_tells_failures() {
        assert_eq!(by_some("x", 20, Ok).unwrap(), (0..20).collect::<Vec<_>>());
        assert!(by_some("x", 9, |n| if n == 7 { anyhow::bail!("no") } else { Ok(()) }).is_err());
    }
}
