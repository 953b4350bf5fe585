//! The agent in a large cluster: its memory, and how soon the programs know what the node file says.

use std::hint;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::memory::{MIB, Memory, of_process};
use tests::node_map::NodeMap;
use tests::ratio::at_most;
use tests::report::{Verdict, progress};
use tests::series::Series;

use crate::common::{Compared, Options, Part, Table};
use crate::crowd::{Stranger, node_file, pod_address};

const NODES: usize = 5000;
const PODS: usize = 150_000;
/// Of the agent with all of them.
const MIB_MAX: f64 = 32.0;
/// Something is known within this time, on a busy machine too.
const KNOWN_TIME_MAX: Duration = Duration::from_secs(60);

/// Changes of one node.
const FULL: usize = 1000;
/// In a run that measures everything.
pub(crate) const SOME: usize = 200;
const QUICK: usize = 20;

/// What was measured.
struct Results {
    /// With two nodes, and with all.
    before: Memory,
    after: Memory,
    /// After all changes.
    last: Memory,
    /// Milliseconds from the new file to the last entry in the map.
    apply: f64,
    /// Milliseconds from a file with one changed node to that change in the map.
    changes: Series,
}

/// Measures, shows, judges; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    part(if options.quick { QUICK } else { FULL })?.finish(options)
}

/// Measures so many changes, and judges.
///
/// # Errors
/// See [`measure`].
pub(crate) fn part(changes: usize) -> Result<Part> {
    let results = measure(changes)?;
    Ok(Part {
        name: "agent",
        table: results.table(),
        notes: results.notes(),
        document: results.to_json(),
        verdicts: results.verdicts(),
        compared: vec![Compared {
            what: "MiB resident of an agent in a large cluster".to_owned(),
            rounds: vec![results.resident()],
        }],
    })
}

/// Makes a node, shows its agent a large cluster, and changes one node of it again and again.
fn measure(changes: usize) -> Result<Results> {
    let cluster = Cluster::builder(Mode::Direct).of_bench().nodes(1).build()?;
    let node = cluster.node(1);
    let map = NodeMap::open(&node.bpffs)?;
    let memory = || of_process(node.agent_pid()?);
    let before = memory()?;

    let mut strangers = Stranger::many(NODES, PODS);
    let [_, last] = strangers.last().context("strangers")?.addresses();
    let text = node_file(&cluster, &strangers)?;
    let start = Instant::now();
    cluster.write_node_file(&text)?;
    let apply = until_known(&map, pod_address(PODS - 1).parse()?, last, start)
        .with_context(|| node.read_log())?;
    let after = memory()?;

    let bar = progress("changes of a node", changes as u64);
    let mut times = Series::default();
    for change in 0..changes {
        let at = change * 7919 % NODES;
        let stranger = strangers.get_mut(at).context("a stranger")?;
        stranger.generation = stranger.generation.wrapping_add(1);
        let (pod, [_, to]) = (stranger.a_pod(), stranger.addresses());
        let text = node_file(&cluster, &strangers)?;
        let start = Instant::now();
        cluster.write_node_file(&text)?;
        times.0.push(until_known(&map, pod, to, start)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Results { before, after, last: memory()?, apply, changes: times })
}

/// Looks without a pause until packets to `pod` go to `node`; milliseconds since `start`.
fn until_known(map: &NodeMap, pod: IpAddr, node: IpAddr, start: Instant) -> Result<f64> {
    while map.way(pod)? != Some(node) {
        ensure!(start.elapsed() < KNOWN_TIME_MAX, "{pod} is not known to be on {node}");
        hint::spin_loop();
        thread::yield_now();
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

impl Results {
    fn table(&self) -> Table {
        let mut rows = Vec::new();
        let all =
            [("two nodes", self.before), ("all", self.after), ("after all changes", self.last)];
        for (what, memory) in all {
            let cells = [memory.resident, memory.anonymous, memory.peak];
            let cells = cells.map(|bytes| format!("{:.1}", bytes as f64 / MIB));
            rows.push([what.to_owned()].into_iter().chain(cells).collect());
        }
        let header = ["", "resident, MiB", "of it anonymous", "the most ever"];
        Table {
            title: format!(
                "The agent, {NODES} nodes with two networks each, {PODS} addresses of pods outside of them"
            ),
            header: header.map(str::to_owned).into(),
            rows,
        }
    }

    fn notes(&self) -> Vec<String> {
        let changed = format!(
            "One changed node in the map: p50 {:.0} ms, p99 {:.0}, at most {:.0} ({} changes).",
            self.changes.p50(),
            self.changes.p99(),
            self.changes.most(),
            self.changes.0.len()
        );
        vec![format!("All in the map {:.0} ms after the file was there.", self.apply), changed]
    }

    /// MiB with all nodes.
    fn resident(&self) -> f64 {
        self.last.resident.max(self.after.resident) as f64 / MIB
    }

    /// What must hold.
    fn verdicts(&self) -> Vec<Verdict> {
        let resident = self.resident();
        vec![Verdict {
            text: format!(
                "agent with {NODES} nodes and {PODS} pods: {resident:.1} MiB resident, at most {MIB_MAX}"
            ),
            outcome: at_most(resident, MIB_MAX),
        }]
    }

    /// For people who count themselves.
    fn to_json(&self) -> Value {
        let memory = |memory: Memory| {
            json!({
                "resident": memory.resident, "anonymous": memory.anonymous, "peak": memory.peak,
            })
        };
        json!({
            "nodes": NODES,
            "pods": PODS,
            "memory_bytes": {
                "before": memory(self.before), "after": memory(self.after),
                "after_changes": memory(self.last),
            },
            "apply_ms": self.apply,
            "change_ms": self.changes.to_json(),
        })
    }
}
