//! The plugin is killed, or fails: nothing is left.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::pod::Pod;
use tests::probe;
use tests::wait::wait_until;

use super::calls::SWITCH;
use super::traces;

/// What an event of the kernel tells.
const SEEN_TIME_MAX: Duration = Duration::from_secs(15);
const NOT_AVAILABLE: u64 = 50;
const TRY_AGAIN: u64 = 11;
const ALREADY_ATTACHED: u64 = 101;

/// Steps of every ADD.
pub(crate) fn steps() -> Result<Vec<String>> {
    listed("--fault-steps", 6)
}

/// Further steps of one with a delegated plugin.
pub(crate) fn ipam_steps() -> Result<Vec<String>> {
    listed("--ipam-fault-steps", 2)
}

fn listed(option: &str, least: usize) -> Result<Vec<String>> {
    let steps = command::run(Command::new(binaries::fault_plugin()?).arg(option))?;
    let steps: Vec<String> = steps.lines().map(str::to_owned).collect();
    ensure!(steps.len() >= least, "{steps:?}");
    Ok(steps)
}

#[test]
fn an_add_after_a_killed_one_works_or_says_what_to_do() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for step in &steps()? {
            let mut pod = node.bare_pod()?;
            traces::killed_add(&pod, step)?;
            if step == "locked" {
                pod.add()?;
                probe::ping(&node.namespace, pod.addresses[0])?;
            } else {
                let error = pod.call("ADD")?.err().with_context(|| format!("{step}: it worked"))?;
                expect(&error, ALREADY_ATTACHED, "DEL first").context(step.clone())?;
            }
            pod.delete().context(step.clone())?;
            traces::ensure_none(node, &pod).context(step.clone())?;
        }
        Ok(())
    });
}

/// It is killed while the kernel hurries. Other tests have it hurry, too: each for a moment.
#[test]
fn an_add_that_is_killed_leaves_the_kernel_in_no_hurry() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.bare_pod()?;
        let before = fs::read_to_string(SWITCH)?;
        traces::killed_add(&pod, "ingress-attached")?;
        wait_until("the agent's next look", SEEN_TIME_MAX, || {
            let value = fs::read_to_string(SWITCH)?;
            ensure!(value.trim() == "0", "{SWITCH} is {value}, and was {before}");
            Ok(())
        })?;
        pod.delete()
    });
}

/// Killed ADDs and a DEL that found no agent, all at once: the sweep takes its time.
#[test]
fn the_agent_finds_what_nobody_deletes() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let killed: Vec<Pod> = steps()?
            .iter()
            .map(|step| {
                let pod = node.bare_pod()?;
                traces::killed_add(&pod, step).map(|()| pod)
            })
            .collect::<Result<_>>()?;
        let (deleted, vanished) = (node.pod()?, node.pod()?);
        let before = traces::of_pods(node)?;
        ensure!(before.len() > 2 * killed.len(), "{before:?}");
        // The namespaces go, and the veths with them: entries follow at once.
        drop((killed, vanished));
        wait_until("entries of interfaces that are gone", SEEN_TIME_MAX, || {
            let entries = node.map("pw_pods")?.len();
            ensure!(entries == 4, "{entries} entries, not those of node and pod");
            Ok(())
        })?;
        // The namespaces of these live on. The last step finishes an ADD, the first makes nothing.
        let unfinished: Vec<Pod> = steps()?
            .iter()
            .filter(|step| !["locked", "host-up"].contains(&step.as_str()))
            .map(|step| {
                let pod = node.bare_pod()?;
                traces::killed_add(&pod, step).map(|()| pod)
            })
            .collect::<Result<_>>()?;
        node.kill_agent();
        deleted.delete()?;
        let left = traces::kernel_traces(node)?;
        let name = deleted.host_ifname()?;
        ensure!(!left.iter().any(|trace| trace.contains(&name)), "{left:?}");
        // The first look shall see that all others are gone.
        traces::wait_for_end_of_interfaces(node, unfinished.len())?;
        node.spawn_agent()?;
        node.wait_for_agent()?;
        traces::wait_for_sweep(node)?;
        for pod in &unfinished {
            ensure!(traces::interfaces(&pod.namespace)? == ["lo"]);
        }
        let pod = node.pod()?;
        probe::ping(&node.namespace, pod.addresses[1])?;
        let problems = node.status()?["problems"].to_string();
        ensure!(problems == "[]", "{problems}");
        Ok(())
    });
}

#[test]
fn an_add_without_a_free_address_leaves_nothing() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        traces::start_with_small_pool(cluster)?;
        let node = cluster.node(1);
        let pods: Vec<Pod> = (0..traces::SMALL_POOL).map(|_| node.pod()).collect::<Result<_>>()?;
        let problems = node.status()?["problems"].to_string();
        ensure!(problems.contains("10.244.1.0/29 are in use"), "{problems}");
        let before = traces::of_pods(node)?;
        let mut late = node.bare_pod()?;
        let error = late.call("ADD")?.err().context("an address too many")?;
        expect(&error, NOT_AVAILABLE, "larger pod network")?;
        let after = traces::of_pods(node)?;
        ensure!(after == before, "{:?}", after.symmetric_difference(&before));
        ensure!(traces::interfaces(&late.namespace)? == ["lo"]);
        pods[2].delete()?;
        late.add()?;
        ensure!(late.addresses[0] == pods[2].addresses[0], "{:?}", late.addresses);
        probe::ping(&pods[0].namespace, late.addresses[0])
    });
}

#[test]
fn an_add_without_an_agent_leaves_nothing() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        node.kill_agent();
        let mut pod = node.bare_pod()?;
        let error = pod.call("ADD")?.err().context("ADD worked without an agent")?;
        expect(&error, TRY_AGAIN, "is podwire-agent running")?;
        node.spawn_agent()?;
        node.wait_for_agent()?;
        traces::ensure_none(node, &pod)?;
        pod.add()?;
        probe::ping(&pod.namespace, node.gateways[0])
    });
}

/// One that hangs may hear of the ADD later than the plugin gave up.
#[test]
fn an_add_with_an_agent_that_hangs_leaves_nothing() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let agent = Pid::from_raw(node.agent_pid()?.try_into()?);
        kill(agent, Signal::SIGSTOP)?;
        let mut pod = node.bare_pod()?;
        let error = pod.call("ADD")?.err().context("ADD worked with an agent that hangs")?;
        expect(&error, TRY_AGAIN, "is podwire-agent running")?;
        ensure!(traces::interfaces(&pod.namespace)? == ["lo"]);
        let left = traces::kernel_traces(node)?;
        ensure!(left.is_empty(), "left: {left:?}");
        kill(agent, Signal::SIGCONT)?;
        wait_until("what it heard too late", SEEN_TIME_MAX, || traces::ensure_none(node, &pod))?;
        pod.add()?;
        probe::ping(&pod.namespace, node.gateways[0])
    });
}

/// The code, and what to do, in an error document of the specification.
fn expect(error: &Value, code: u64, advice: &str) -> Result<()> {
    ensure!(error["code"] == code, "{error}");
    ensure!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    ensure!(error["details"].as_str().is_some_and(|text| text.contains(advice)), "{error}");
    Ok(())
}
