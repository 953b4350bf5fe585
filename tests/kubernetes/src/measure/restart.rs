//! How long an agent's pod takes until it is Ready.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::report::{Verdict, progress, section, table};
use harness::run::start_of;
use harness::series::Series;

use super::{Size, ms};
use crate::agent::{self, NAMESPACE, SELECTOR};
use crate::cluster::Cluster;
use crate::kubectl::condition;
use crate::watch::{Heard, Watch};

/// Milliseconds.
const WANTED: f64 = 2_000.0;
const READY_TIME_MAX: Duration = Duration::from_secs(90);
/// Of the kernel's ticks, as it shows them to programs (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// One start. All times are before the moment at which the pod was Ready, in milliseconds.
struct Start {
    /// The kubelet took the pod: `status.startTime`.
    taken: f64,
    /// The container's process was made: a moment before `startedAt`.
    process: f64,
}

/// Deletes the pods of agents one after the other, and follows those that take their place.
pub(super) fn run(cluster: &Cluster, size: Size) -> Result<Vec<Verdict>> {
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let query = format!("&labelSelector={SELECTOR}");
    let watch = Watch::new(&cluster.control.kubectl, &collection, &query)?;
    let mut current: Vec<(String, String)> = Vec::new();
    watch.until("the agents", READY_TIME_MAX, |heard| {
        current.push((node_of(heard), heard.name().to_owned()));
        (current.len() == cluster.nodes.len()).then_some(())
    })?;
    let count = size.restarts * cluster.nodes.len();
    let bar = progress("agents start", count as u64);
    let (mut of_pod, mut of_process) = (Series::default(), Series::default());
    for number in 0..count {
        let at = number % current.len();
        let (node, old) = current[at].clone();
        let delete = format!("delete pod --namespace {NAMESPACE} {old} --wait=false");
        cluster.control.kubectl.run(&delete)?;
        let (name, start) = follow(&watch, &node, &old).with_context(|| format!("after {old}"))?;
        of_pod.0.push(start.taken);
        of_process.0.push(start.process);
        current[at].1 = name;
        bar.inc(1);
    }
    bar.finish_and_clear();
    section(&format!("Until an agent's pod is Ready, {count} starts, in ms"));
    let mut grid = table(&["from", "p50", "most"]);
    for (what, series) in [
        ("the pod's status.startTime (with the check-up before)", &of_pod),
        ("the start of the agent's container", &of_process),
    ] {
        grid.add_row([
            what.to_owned(),
            format!("{:.0}", series.p50()),
            format!("{:.0}", series.most()),
        ]);
    }
    println!("{grid}");
    println!(
        "The kubelet notices once a second that a container runs or has ended: twice with the check-up."
    );
    let (median, most) = (of_process.p50(), of_process.most());
    Ok(vec![Verdict {
        text: format!(
            "an agent's container until its pod is Ready: {median:.0} ms, most of {count} {most:.0}, \
             at most {WANTED:.0}"
        ),
        outcome: of_process.p99_at_most(WANTED),
    }])
}

/// Waits for the pod that takes the place of another until it is Ready.
fn follow(watch: &Watch, node: &str, old: &str) -> Result<(String, Start)> {
    let mut taken = None;
    let (name, uid, ready) = watch.until("an agent that is Ready", READY_TIME_MAX, |heard| {
        if heard.name() == old || node_of(heard) != node {
            return None;
        }
        if heard.object["status"]["startTime"].is_string() {
            taken.get_or_insert(heard.at);
        }
        let uid = heard.object["metadata"]["uid"].as_str()?.to_owned();
        condition(&heard.object, "Ready").then(|| (heard.name().to_owned(), uid, heard.at))
    })?;
    let taken = taken.context("it has no startTime")?;
    let process = began(&uid)?;
    let before = |moment: Instant| ms(ready.saturating_duration_since(moment));
    Ok((name, Start { taken: before(taken), process: before(process) }))
}

fn node_of(heard: &Heard) -> String {
    heard.object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

/// When the process of the agent in a pod began.
fn began(uid: &str) -> Result<Instant> {
    let process = agent::process_of(uid)?;
    let ticks: f64 = start_of(process).context("it has ended")?.parse()?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let now = Instant::now();
    let uptime: f64 = uptime.split(' ').next().context("/proc/uptime")?.parse()?;
    let age = (uptime - ticks / TICKS_PER_SECOND).max(0.0);
    now.checked_sub(Duration::from_secs_f64(age)).context("a time before this machine's start")
}
