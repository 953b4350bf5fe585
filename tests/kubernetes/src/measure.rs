//! How soon, how small, how fast: figures that need a cluster, each beside what is wanted of it.

mod arrival;
mod crowd;
mod histogram;
mod memory;
mod reach;
mod restart;
mod starts;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use harness::report::{self, Verdict};

use crate::cluster::{Cluster, Plan};
use crate::network::Network;
use crate::report::Report;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// How soon every agent has a change of a node object in its maps
    Nodes,
    /// How soon an agent's pod is Ready
    Agents,
    /// The agent's memory with many pods and nodes, and the size of the image
    Memory,
    /// How long pods take to start, beside the reference plugin
    Pods,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Nodes that are added, changed and deleted.
    events: usize,
    /// Pods of each node that send to new ones.
    senders: usize,
    /// Restarts of each agent.
    restarts: usize,
    /// Pods and nodes when the memory is looked at.
    pods: usize,
    nodes: usize,
    /// Pods at once, and how often.
    burst: usize,
    bursts: usize,
}

/// Measures and shows one of them.
type Step = fn(&Cluster, Size) -> Result<Vec<Verdict>>;

const FULL: Size =
    Size { events: 1000, senders: 5, restarts: 10, pods: 250, nodes: 100, burst: 110, bursts: 3 };
const QUICK: Size =
    Size { events: 50, senders: 2, restarts: 2, pods: 30, nodes: 20, burst: 20, bursts: 1 };

/// Measures, shows, judges; returns the exit code.
pub(crate) fn run(plan: Plan, subjects: &[Subject], is_quick: bool) -> Result<u8> {
    let size = if is_quick { QUICK } else { FULL };
    let wants = |subject| subjects.is_empty() || subjects.contains(&subject);
    let mut verdicts = Vec::new();
    if wants(Subject::Nodes) || wants(Subject::Agents) || wants(Subject::Memory) {
        let cluster = start(plan)?;
        let steps: [(Subject, Step); 3] = [
            (Subject::Nodes, arrival::run),
            (Subject::Agents, restart::run),
            (Subject::Memory, memory::run),
        ];
        for (_, step) in steps.into_iter().filter(|(subject, _)| wants(*subject)) {
            let found = step(&cluster, size);
            verdicts.extend(found.inspect_err(|_| save_logs(&cluster))?);
        }
    }
    if wants(Subject::Pods) {
        verdicts.extend(pods(plan, size)?);
    }
    Ok(report::verdicts(&verdicts))
}

/// Ours, then the reference plugin.
fn pods(plan: Plan, size: Size) -> Result<Vec<Verdict>> {
    let of = |network| {
        let cluster = start(Plan { network, ..plan })?;
        starts::run(&cluster, size).inspect_err(|_| save_logs(&cluster))
    };
    let (ours, theirs) = (of(plan.network)?, of(Network::Bridge)?);
    Ok(starts::show(&ours, &theirs, size))
}

/// A cluster whose nodes are Ready.
fn start(plan: Plan) -> Result<Cluster> {
    eprintln!("\n== {}", plan.name());
    let mut report = Report::default();
    let mut cluster = Cluster::start(plan, &mut report)?;
    report.check("nodes are Ready", || cluster.install_network());
    if report.failed() > 0 {
        save_logs(&cluster);
    }
    ensure!(report.failed() == 0, "{} did not start", plan.name());
    Ok(cluster)
}

fn save_logs(cluster: &Cluster) {
    match cluster.save_logs() {
        Ok(directory) => eprintln!("  logs: {}", directory.display()),
        Err(error) => eprintln!("  no logs: {error:#}"),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
