//! How long a change of a node object takes from the API server into the maps of every agent, and until packets of all
//! pods reach a new node.

use std::net::IpAddr;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::cluster::Mode;
use harness::node_map::NodeMap;
use harness::report::{Verdict, progress, section, table};
use harness::series::Series;
use harness::wait::pace_while;
use serde_json::Value;

use super::reach::Reach;
use super::{Size, ms};
use crate::cluster::Cluster;
use crate::control::Control;
use crate::network::Network;
use crate::node::Node;
use crate::strangers::{Stranger, answer, leads};
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

/// How long something took, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// From the event at an independent watcher, which hears it a moment after the API server has it.
    event: f64,
    /// From before the request: nothing is left out of it.
    request: f64,
}

/// Many of them.
#[derive(Default)]
struct Times {
    event: Series,
    request: Series,
}

impl Times {
    fn push(&mut self, took: Took) {
        self.event.0.push(took.event);
        self.request.0.push(took.request);
    }
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
            Self::Move => stranger.change(control, stranger.other_addresses()),
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
            if !leads(nodes, pod, wanted)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What is looked at.
struct Looked<'a> {
    control: &'a Control,
    watch: Watch,
    agents: Vec<NodeMap>,
    /// Where packets can arrive at a node that is only an object.
    reach: Option<Reach>,
}

/// Adds, changes and deletes nodes one after another.
pub(super) fn run(cluster: &Cluster, size: Size) -> Result<Vec<Verdict>> {
    let control = &cluster.control;
    answer(control)?;
    let is_vxlan = cluster.plan.network == Network::Podwire(Mode::Vxlan);
    let reach = if is_vxlan { None } else { Some(Reach::new(cluster, size)?) };
    let watch = Watch::new(&control.kubectl, "/api/v1/nodes", "")?;
    let agents = cluster.nodes.iter().map(Node::node_map).collect::<Result<Vec<_>>>()?;
    let looked = Looked { control, watch, agents, reach };
    let mut all = CHANGES.map(|_| Times::default());
    let mut packets = Times::default();
    let bar = progress("nodes come and go", size.events as u64);
    for number in 0..size.events {
        let stranger = Stranger::new(number);
        for ((change, what), series) in CHANGES.iter().zip(&mut all) {
            let times = looked.time(number as u32, stranger, *change);
            let (in_maps, reached) =
                times.with_context(|| format!("{what}: {}", stranger.name()))?;
            series.push(in_maps);
            reached.into_iter().for_each(|took| packets.push(took));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if looked.reach.is_some() {
        Reach::end(cluster)?;
    }
    let count = looked.agents.len();
    let mut found: Vec<(String, Times)> = CHANGES
        .iter()
        .zip(all)
        .map(|((_, what), series)| (format!("{what}: in the maps of all {count} agents"), series))
        .collect();
    match &looked.reach {
        Some(reach) => {
            let what = format!("{}: packets of all {} pods arrive", CHANGES[0].1, reach.pods());
            found.push((what, packets));
        }
        None => println!("\nPackets are not sent: the new nodes are objects, which end no tunnel."),
    }
    Ok(show(&found, size))
}

fn show(found: &[(String, Times)], size: Size) -> Vec<Verdict> {
    let count = size.events;
    section(&format!("From the API server's event on, {count} events of each kind, in ms"));
    let mut grid = table(&["event", "p50", "p99", "most", "p99 from before the request on"]);
    for (what, Times { event, request }) in found {
        let figures = [event.p50(), event.p99(), event.most(), request.p99()];
        let figures = figures.map(|figure| format!("{figure:.1}"));
        grid.add_row([what.clone()].into_iter().chain(figures));
    }
    println!("{grid}");
    let verdict = |(what, times): &(String, Times)| Verdict {
        text: format!(
            "{what}: p99 of {count} events {:.1} ms, at most {WANTED:.0} ({:.1} from before the request)",
            times.event.p99(),
            times.request.p99()
        ),
        outcome: times.event.p99_at_most(WANTED),
    };
    found.iter().map(verdict).collect()
}

impl Looked<'_> {
    /// Makes a change, and returns how long it took until every agent has it, and until packets of all pods have arrived
    /// at a new node.
    fn time(&self, event: u32, stranger: Stranger, change: Change) -> Result<(Took, Option<Took>)> {
        let reach = self.reach.as_ref().filter(|_| matches!(change, Change::Create));
        thread::scope(|scope| {
            let agents = &self.agents;
            let in_maps = scope.spawn(move || arrival(agents, stranger, change));
            let reached = reach
                .map(|reach| scope.spawn(move || reach.arrival(stranger, event, ARRIVAL_TIME_MAX)));
            let before = Instant::now();
            change.make(stranger, self.control)?;
            let told = self.watch.until("its event", ARRIVAL_TIME_MAX, |heard| {
                change.is_told_by(heard, stranger).then_some(heard.at)
            })?;
            let since = |thread: ScopedJoinHandle<'_, Result<Instant>>| {
                let at = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                let [event, request] =
                    [told, before].map(|from| ms(at.saturating_duration_since(from)));
                anyhow::Ok(Took { event, request })
            };
            Ok((since(in_maps)?, reached.map(since).transpose()?))
        })
    }
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
