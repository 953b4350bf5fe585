//! Who reaches whom.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, ensure};

use super::stage::Stage;
use crate::namespace::Namespace;
use crate::probe;
use crate::ratio::Outcome;
use crate::report::{Verdict, progress, section, table};

const TCP_BYTES: usize = 100_000;
const UDP_BYTES: usize = 1200;
/// Checks wait more than they work.
const AT_ONCE: usize = 4;

const GROUPS: [&str; 7] = [
    "pod to pod of the same node",
    "pod to pod of another node",
    "pod to its node",
    "pod to other nodes",
    "pod to the world, seen as its node",
    "node to its pods",
    "node to pods of other nodes",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Icmp,
    Tcp,
    Udp,
}

const WHATS: [(What, &str); 3] = [(What::Icmp, "ICMP"), (What::Tcp, "TCP"), (What::Udp, "UDP")];

/// From whom to which address; `seen` is the source that the other side must see.
struct Check<'a> {
    group: usize,
    family: usize,
    what: What,
    from: &'a Namespace,
    name: String,
    to: IpAddr,
    seen: Option<IpAddr>,
}

/// Checks everything and shows the table.
pub(super) fn run(stage: &Stage) -> Result<Vec<Verdict>> {
    let checks = all(stage);
    let results = run_all(&checks);
    let mut grid =
        table(&["from and to", "ICMP v4", "ICMP v6", "TCP v4", "TCP v6", "UDP v4", "UDP v6"]);
    for (group, name) in GROUPS.iter().enumerate() {
        let mut row = vec![(*name).to_owned()];
        for (what, _) in WHATS {
            for family in 0..2 {
                let of_cell = checks.iter().zip(&results).filter(|(check, _)| {
                    check.group == group && check.what == what && check.family == family
                });
                let (good, all) = of_cell.fold((0, 0), |(good, all), (_, result)| {
                    (good + usize::from(result.is_ok()), all + 1)
                });
                row.push(format!("{good} of {all}"));
            }
        }
        grid.add_row(row);
    }
    section("Who reaches whom (every ordered pair)");
    println!("{grid}");
    for (check, result) in checks.iter().zip(&results) {
        if let Err(error) = result {
            println!("failed: {} to {}: {error:#}", check.name, check.to);
        }
    }
    let failed = results.iter().filter(|result| result.is_err()).count();
    let text = format!("{}: {} checks, {failed} failed", stage.mode.name(), results.len());
    let outcome = if failed == 0 { Outcome::Holds } else { Outcome::Fails };
    Ok(vec![Verdict { text, outcome }])
}

fn run_all(checks: &[Check<'_>]) -> Vec<Result<()>> {
    let bar = progress("checks", checks.len() as u64);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((at, check)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    checks.get(at).map(|check| (at, check))
                } {
                    let result = check.run();
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

impl Check<'_> {
    fn run(&self) -> Result<()> {
        let seen = match self.what {
            What::Icmp => return probe::ping(self.from, self.to),
            What::Tcp => {
                probe::tcp(self.from, self.to, TCP_BYTES)?;
                self.seen.map(|_| probe::seen_tcp(self.from, self.to)).transpose()?
            }
            What::Udp => {
                probe::udp(self.from, self.to, UDP_BYTES)?;
                self.seen.map(|_| probe::seen_udp(self.from, self.to)).transpose()?
            }
        };
        ensure!(seen == self.seen, "seen as {seen:?} instead of {:?}", self.seen);
        Ok(())
    }
}

fn all(stage: &Stage) -> Vec<Check<'_>> {
    let mut checks = Vec::new();
    let mut add = |group, from, name: &str, to: &[IpAddr], seen: Option<&[IpAddr]>| {
        for (what, _) in WHATS {
            for (family, to) in to.iter().enumerate() {
                let seen = seen.and_then(|seen| seen.get(family).copied());
                let name = name.to_owned();
                checks.push(Check { group, family, what, from, name, to: *to, seen });
            }
        }
    };
    for (number, pod) in stage.pods.iter().enumerate() {
        let (name, from) = (Stage::name(number), &pod.namespace);
        for (other, to) in stage.pods.iter().enumerate().filter(|(other, _)| *other != number) {
            let group = usize::from(Stage::node_of(other) != Stage::node_of(number));
            add(group, from, &name, &to.addresses, Some(&pod.addresses));
        }
        for (at, node) in stage.cluster.nodes().iter().enumerate() {
            let is_own = at == Stage::node_of(number);
            add(if is_own { 2 } else { 3 }, from, &name, &node.addresses, None);
        }
        add(4, from, &name, &stage.world, Some(&pod.node.addresses));
    }
    for (at, node) in stage.cluster.nodes().iter().enumerate() {
        for (number, pod) in stage.pods.iter().enumerate() {
            let group = if Stage::node_of(number) == at { 5 } else { 6 };
            add(group, &node.namespace, &node.name, &pod.addresses, Some(&node.gateways));
        }
    }
    checks
}
