//! How long a change of a node object takes from the API server into the maps of every agent.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::node_map::NodeMap;
use harness::report::{Verdict, progress, section, table};
use harness::series::Series;
use harness::wait::pace_while;
use serde_json::Value;

use super::strangers::{Stranger, answer};
use super::{Size, ms};
use crate::cluster::Cluster;
use crate::control::Control;
use crate::node::Node;
use crate::watch::{Heard, Watch};

/// Milliseconds.
const WANTED: f64 = 100.0;
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the maps: less than what is measured, and hundredths of a processor.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// What is done to a node object.
#[derive(Clone, Copy, Debug)]
enum Change {
    Create,
    Move,
    Delete,
}

const CHANGES: [(Change, &str); 3] = [
    (Change::Create, "a node is added"),
    (Change::Move, "its address changes"),
    (Change::Delete, "it is deleted"),
];

impl Change {
    fn make(self, stranger: Stranger, control: &Control) -> Result<()> {
        match self {
            Self::Create => stranger.create(control),
            Self::Move => stranger.change(control),
            Self::Delete => stranger.delete(control),
        }
    }

    /// Whether an event is that of the change.
    fn is_told_by(self, heard: &Heard, stranger: Stranger) -> bool {
        let is_at = |addresses: [IpAddr; 2]| {
            let first: &Value = &heard.object["status"]["addresses"][0]["address"];
            *first == addresses[0].to_string()
        };
        let of_kind = match self {
            Self::Create => heard.kind == "ADDED",
            Self::Move => heard.kind == "MODIFIED" && is_at(stranger.other_addresses()),
            Self::Delete => heard.kind == "DELETED",
        };
        of_kind && heard.name() == stranger.name()
    }

    /// Whether a node has it: of both families, to one of the two addresses.
    fn has_arrived(self, nodes: &NodeMap, stranger: Stranger) -> Result<bool> {
        let wanted = match self {
            Self::Create => Some(stranger.addresses()),
            Self::Move => Some(stranger.other_addresses()),
            Self::Delete => None,
        };
        for pod in stranger.pods() {
            let way = nodes.way(pod)?;
            let is_right = match (way, wanted) {
                (Some(to), Some(addresses)) => addresses.contains(&to),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !is_right {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Adds, changes and deletes nodes one after another.
pub(super) fn run(cluster: &Cluster, size: Size) -> Result<Vec<Verdict>> {
    let control = &cluster.control;
    answer(control)?;
    let watch = Watch::new(&control.kubectl, "/api/v1/nodes", "")?;
    let agents = cluster.nodes.iter().map(Node::node_map).collect::<Result<Vec<_>>>()?;
    let mut all = CHANGES.map(|_| Series::default());
    let bar = progress("nodes come and go", size.events as u64);
    for number in 0..size.events {
        let stranger = Stranger::new(number);
        for ((change, what), series) in CHANGES.iter().zip(&mut all) {
            let time = time(control, &watch, &agents, stranger, *change);
            series.0.push(time.with_context(|| format!("{what}: {}", stranger.name()))?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let count = agents.len();
    section(&format!(
        "From the API server's event into the maps of all {count} agents, {} events of each kind, in ms",
        size.events
    ));
    let mut grid = table(&["event", "p50", "p99", "most"]);
    for ((_, what), series) in CHANGES.iter().zip(&all) {
        let figures = [series.p50(), series.p99(), series.most()];
        let mut row = vec![(*what).to_owned()];
        row.extend(figures.map(|figure| format!("{figure:.1}")));
        grid.add_row(row);
    }
    println!("{grid}");
    let verdicts = CHANGES.iter().zip(&all).map(|((_, what), series)| Verdict {
        text: format!(
            "{what}: p99 of {} events {:.1} ms until every agent has it, at most {WANTED:.0}",
            size.events,
            series.p99()
        ),
        outcome: series.p99_at_most(WANTED),
    });
    Ok(verdicts.collect())
}

/// Makes a change, and returns the milliseconds from its event at an independent watcher until every agent has it.
fn time(
    control: &Control,
    watch: &Watch,
    agents: &[NodeMap],
    stranger: Stranger,
    change: Change,
) -> Result<f64> {
    thread::scope(|scope| {
        let arrival = scope.spawn(|| arrival(agents, stranger, change));
        change.make(stranger, control)?;
        let told = watch.until("its event", ARRIVAL_TIME_MAX, |heard| {
            change.is_told_by(heard, stranger).then_some(heard.at)
        })?;
        let arrived = arrival.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(ms(arrived.saturating_duration_since(told)))
    })
}

/// When the last agent has it.
fn arrival(agents: &[NodeMap], stranger: Stranger, change: Change) -> Result<Instant> {
    let began = Instant::now();
    let mut waiting: Vec<&NodeMap> = agents.iter().collect();
    let mut result = Ok(());
    pace_while(LOOK_EVERY, |_| {
        result = look(&mut waiting, stranger, change);
        result.is_ok() && !waiting.is_empty() && began.elapsed() < ARRIVAL_TIME_MAX
    });
    result?;
    let missing = waiting.len();
    ensure!(missing == 0, "{missing} agents do not have it after {ARRIVAL_TIME_MAX:?}");
    Ok(Instant::now())
}

/// Leaves those that do not have it.
fn look(waiting: &mut Vec<&NodeMap>, stranger: Stranger, change: Change) -> Result<()> {
    let mut missing = Vec::new();
    for nodes in waiting.drain(..) {
        if !change.has_arrived(nodes, stranger)? {
            missing.push(nodes);
        }
    }
    *waiting = missing;
    Ok(())
}
