//! The plugin, and the agent, are killed in front of each of their system calls: what undoes a call brings
//! the node back to what it was, as far as tools show it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::probe;
use tests::tracer::{self, At, Sysno, Trace};

use super::snapshot;

/// Nodes, on each of which one plugin after the other is killed. The kernel takes its time to remove
/// interfaces, so they are more than processors.
const NODES: u8 = 4;
/// No two runs wait for the kernel in as many calls.
const RUNS_DIFFER: usize = 32;
/// Undisturbed runs, of which the shortest shows the calls: one in which something takes its time has several
/// times as many.
const UNDISTURBED: usize = 5;
/// Times that the agent is killed: its start takes long, so not in front of each call, but evenly.
const AGENT_KILLS: usize = 40;
/// Whoever answers a question makes more calls than this.
const CALLS_MIN: usize = 20;
const TRY_AGAIN: u64 = 11;

#[test]
fn del_undoes_an_add_that_is_killed_anywhere() {
    at_each_call(configuration, |pod, at| {
        let trace = kill(pod, "ADD", at)?;
        call(pod, "DEL").context(trace.end())?;
        Ok(trace)
    });
}

#[test]
fn gc_undoes_an_add_that_is_killed_anywhere() {
    at_each_call(configuration, |pod, at| {
        let trace = kill(pod, "ADD", at)?;
        call(pod, "GC").context(trace.end())?;
        Ok(trace)
    });
}

#[test]
fn del_finishes_a_del_that_is_killed_anywhere() {
    at_each_call(configuration, |pod, at| {
        call(pod, "ADD")?;
        let trace = kill(pod, "DEL", at)?;
        call(pod, "DEL").context(trace.end())?;
        Ok(trace)
    });
}

#[test]
fn gc_finishes_a_gc_that_is_killed_anywhere() {
    at_each_call(configuration, |pod, at| {
        call(pod, "ADD")?;
        let trace = kill(pod, "GC", at)?;
        call(pod, "GC").context(trace.end())?;
        Ok(trace)
    });
}

#[test]
fn del_undoes_an_add_of_host_local_that_is_killed_anywhere() {
    at_each_call(host_local, |pod, at| {
        let trace = kill_with(pod, "ADD", &host_local(&pod.node), at)?;
        call_with(pod, "DEL", &host_local(&pod.node)).context(trace.end())?;
        Ok(trace)
    });
}

/// Its successor completes what it was asked. One that takes too long to come is an error that says so.
#[test]
fn an_agent_that_is_killed_during_an_add_completes_it() {
    at_calls_of_the_agent(|pod, at| {
        let mut added = Ok(Value::Null);
        let trace = while_agent_is_killed(pod, "ADD", at, &mut added)?;
        match added {
            Ok(added) => ping(pod, &added).with_context(|| trace.end())?,
            Err(error) => ensure!(error["code"] == TRY_AGAIN, "{}: {error}", trace.end()),
        }
        call(pod, "DEL").context(trace.end())?;
        Ok(trace)
    });
}

#[test]
fn an_agent_that_is_killed_during_a_del_leaves_nothing() {
    at_calls_of_the_agent(|pod, at| {
        call(pod, "ADD")?;
        let mut deleted = Ok(Value::Null);
        let trace = while_agent_is_killed(pod, "DEL", at, &mut deleted)?;
        deleted.map_err(|error| anyhow!("DEL: {error}")).with_context(|| trace.end())?;
        // DEL does not wait long for an agent; a runtime that calls GC has nothing left.
        call(pod, "GC").context(trace.end())?;
        Ok(trace)
    });
}

/// Does `work` for each number of a call from the first that can change something, on several nodes at once;
/// after each, the node is as it was.
///
/// Before it has its lock or the agent's ear, a plugin only reads: those calls are not killed at. Where
/// that ends, an undisturbed run shows.
fn at_each_call(
    configuration: fn(&Node) -> Value,
    work: impl Fn(&Pod, At) -> Result<Trace> + Sync,
) {
    Cluster::builder(Mode::Direct).nodes(NODES).test(|cluster| {
        let whole = undisturbed(cluster, &work)?;
        let acts = |call: &Sysno| matches!(call, Sysno::flock | Sysno::connect);
        let first = whole.iter().position(acts).context("it neither locks nor asks")? + 1;
        // Its end again by its name: no two runs wait for the kernel in as many calls.
        let numbers = (first..=whole.len()).map(At::Number);
        let all: Vec<At> = numbers.chain([At::First(Sysno::exit_group)]).collect();
        let next = AtomicUsize::new(0);
        let killed = on_all_nodes(cluster, |node| {
            // `host-local` makes its directory once.
            let first = node.bare_pod()?;
            call_with(&first, "ADD", &configuration(node))?;
            call_with(&first, "DEL", &configuration(node))?;
            at_these(&node.bare_pod()?, &all, &next, &work)
        })?;
        ensure!(killed.contains(&At::First(Sysno::exit_group)), "its end is not reached");
        ensure!(killed.len() + RUNS_DIFFER > all.len(), "{} kills of {}", killed.len(), all.len());
        Ok(())
    });
}

/// As [`at_each_call`], with calls of the agent from the one by which it takes the plugin's question.
fn at_calls_of_the_agent(work: impl Fn(&Pod, At) -> Result<Trace> + Sync) {
    Cluster::builder(Mode::Direct).nodes(NODES).test(|cluster| {
        let count = undisturbed(cluster, &work)?.len();
        ensure!(count > CALLS_MIN, "{count} calls");
        let kills = AGENT_KILLS.min(count);
        let number = |step| At::Number(1 + step * (count - 1) / kills);
        let some: Vec<At> = (0..kills).map(number).collect();
        let next = AtomicUsize::new(0);
        let killed =
            on_all_nodes(cluster, |node| at_these(&node.bare_pod()?, &some, &next, &work))?;
        // What the agent does meanwhile by itself makes the row longer or shorter.
        ensure!(killed.len() * 2 > kills, "killed at {killed:?} of {count}");
        Ok(())
    });
}

/// The calls of the shortest of some runs that end by themselves.
fn undisturbed(cluster: &Cluster, work: &impl Fn(&Pod, At) -> Result<Trace>) -> Result<Vec<Sysno>> {
    let pod = cluster.node(1).bare_pod()?;
    let runs = (0..UNDISTURBED).map(|_| Ok(work(&pod, At::Never)?.calls));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    runs.into_iter().min_by_key(Vec::len).context("no runs")
}

/// Does `work` at one place after the other, which others do too; returns where it killed.
fn at_these(
    pod: &Pod,
    places: &[At],
    next: &AtomicUsize,
    work: &(impl Fn(&Pod, At) -> Result<Trace> + Sync),
) -> Result<Vec<At>> {
    let before = snapshot::of(&pod.node, pod)?;
    let mut killed = Vec::new();
    while let Some(at) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
        let trace = work(pod, *at)?;
        let after = snapshot::of(&pod.node, pod)?;
        snapshot::ensure_same(&before, &after).with_context(|| trace.end())?;
        killed.extend(trace.is_killed.then_some(*at));
    }
    Ok(killed)
}

fn ping(pod: &Pod, added: &Value) -> Result<()> {
    let address = added["ips"][0]["address"].as_str().and_then(|text| text.split('/').next());
    probe::ping(&pod.node.namespace, address.context("no address")?.parse()?)
}

fn on_all_nodes<T: Send>(
    cluster: &Cluster,
    work: impl Fn(&Arc<Node>) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let all = super::parallel::at_once(cluster.nodes().iter(), work)?;
    Ok(all.into_iter().flatten().collect())
}

fn kill(pod: &Pod, verb: &str, at: At) -> Result<Trace> {
    kill_with(pod, verb, &configuration(&pod.node), at)
}

fn kill_with(pod: &Pod, verb: &str, configuration: &Value, at: At) -> Result<Trace> {
    let netns = netns(pod, verb);
    let call = CniCall { command: verb, container_id: container(pod, verb), netns: &netns };
    let mut command = pod.node.bare_cni_command(&call);
    let trace = tracer::run(&mut command, &configuration.to_string(), at)?;
    ensure!(!trace.stdout.contains("\"code\""), "{verb}: {}: {}", trace.end(), trace.stdout);
    Ok(trace)
}

fn call(pod: &Pod, verb: &str) -> Result<()> {
    call_with(pod, verb, &configuration(&pod.node))
}

fn call_with(pod: &Pod, verb: &str, configuration: &Value) -> Result<()> {
    answer(pod, verb, configuration)?.map(drop).map_err(|error| anyhow!("{verb}: {error}"))
}

fn answer(pod: &Pod, verb: &str, configuration: &Value) -> Result<Result<Value, Value>> {
    let netns = netns(pod, verb);
    let call = CniCall { command: verb, container_id: container(pod, verb), netns: &netns };
    pod.node.cni_with(&call, configuration)
}

/// Calls the plugin while the agent is killed in front of its call with this number, and starts that again.
fn while_agent_is_killed(
    pod: &Pod,
    verb: &str,
    at: At,
    answered: &mut Result<Value, Value>,
) -> Result<Trace> {
    let node = &pod.node;
    let process = node.agent_pid()?;
    let enough = AtomicBool::new(false);
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let enough = &enough;
        let tracer = scope.spawn(move || {
            let ready = move || ready.send(()).expect("who waits");
            tracer::follow(process, Sysno::accept4, at, ready, enough)
        });
        is_ready.recv().context("the agent cannot be traced")?;
        let plugin = scope.spawn(|| {
            let answer = answer(pod, verb, &configuration(node));
            enough.store(true, Ordering::Release);
            // The next call of the agent is the one that ends the trace.
            let _ = node.status();
            answer
        });
        let trace = tracer.join().expect("a thread")?;
        if trace.is_killed {
            node.kill_agent();
            node.spawn_agent()?;
            node.wait_for_agent()?;
        }
        *answered = plugin.join().expect("a thread")?;
        Ok(trace)
    })
}

fn configuration(node: &Node) -> Value {
    let mut configuration = node.cni_configuration();
    configuration["cni.dev/valid-attachments"] = json!([]);
    configuration
}

fn host_local(node: &Node) -> Value {
    let mut configuration = configuration(node);
    configuration["cniVersion"] = "1.0.0".into();
    let number = node.name.trim_start_matches("node");
    configuration["ipam"] = super::ipam::host_local_ranges(node, number);
    configuration
}

/// GC is of no container.
fn container<'a>(pod: &'a Pod, verb: &str) -> &'a str {
    if verb == "GC" { "" } else { &pod.container_id }
}

fn netns(pod: &Pod, verb: &str) -> PathBuf {
    if verb == "GC" { PathBuf::new() } else { pod.netns() }
}
