//! What the table of symptoms in docs/kubernetes.md says to look at shows what it says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wait::wait_until;

use super::agents::wait_for_agents;
use super::by_hand;
use super::pods::{self, AT_ONCE, scale, settle};
use crate::agent::{self, NAMESPACE};
use crate::cluster::Cluster;
use crate::kubectl::message;

/// An ADD waits 20 s for its agent.
const TOLD_TIME_MAX: Duration = Duration::from_secs(90);
const END_TIME_MAX: Duration = Duration::from_secs(60);
/// STATUS waits a minute for an agent.
const NOT_READY_TIME_MAX: Duration = Duration::from_secs(150);
/// Of the event: what is wrong, and what to do.
const TOLD: [&str; 3] = [
    "FailedCreatePodSandBox",
    "no agent answers on /run/podwire/agent.sock",
    "is podwire-agent running on this node?",
];
/// What an agent says that serves.
const SERVES: &str = "socket=/run/podwire/agent.sock";

/// Of agents that are well, of which some have ended before.
pub(super) fn agents(cluster: &Cluster) -> Result<String> {
    let kubectl = &cluster.control.kubectl;
    let mut restarted = 0;
    for pod in agent::pods(kubectl)? {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        let logs = |of: &str| kubectl.run(&format!("--namespace {NAMESPACE} logs {name} {of}"));
        let found = logs("--container doctor")?;
        ensure!(found.lines().any(|line| line.starts_with("0 failed, ")), "{found}");
        if pod["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(0) {
            let ended = logs("--previous")?;
            ensure!(ended.contains(SERVES), "the agent that ended said: {ended}");
            restarted += 1;
        }
        let node = pod["spec"]["nodeName"].as_str().context("a node")?;
        let described = kubectl.run(&format!("describe node {node}"))?;
        ensure!(described.contains("PodNetworkReady"), "{described}");
    }
    ensure!(restarted > 0, "no agent has ended before");
    Ok(format!("check-ups, events, and what {restarted} agents said that have ended"))
}

/// No node is an agent's: pods that are there go on, new ones say what is wrong, and start when agents are back.
pub(super) fn no_agents(cluster: &Cluster) -> Result<String> {
    let kubectl = &cluster.control.kubectl;
    let [(_, _, image, _), ..] = &super::agents::agents(cluster)?[..] else {
        anyhow::bail!("no agent")
    };
    let nodes = |selector: &str| {
        let patch = format!(
            r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"podwire.dev/no-node":{selector}}}}}}}}}}}"#
        );
        let patched = format!("patch daemonset podwire --namespace {NAMESPACE} --patch {patch}");
        kubectl.run(&patched)
    };
    nodes(r#""true""#)?;
    // Of a single pod they are shown anyway.
    let describe = format!(
        "describe pods --namespace {} --selector app=churn --show-events=true",
        pods::NAMESPACE
    );
    let see = || {
        wait_until("the end of the agents", END_TIME_MAX, || {
            let agents = super::agents::agents(cluster)?;
            ensure!(agents.is_empty(), "{agents:?}");
            Ok(())
        })?;
        scale(cluster, AT_ONCE)?;
        wait_until("pods that say what is wrong", TOLD_TIME_MAX, || {
            let described = kubectl.run(&describe)?;
            TOLD.iter().try_for_each(|text| {
                ensure!(described.contains(text), "{text} is not in {described}");
                Ok(())
            })
        })?;
        by_hand::agent(cluster)?;
        if cluster.plan.containerd.is_newest() { not_ready(cluster) } else { Ok(()) }
    };
    let told = see();
    // Whatever was seen: later checks need agents.
    nodes("null")?;
    told?;
    wait_for_agents(cluster, image, &[])?;
    cluster.wait_until_ready()?;
    settle(cluster, AT_ONCE)?;
    scale(cluster, 0)?;
    settle(cluster, 0)?;
    Ok("new pods say what is wrong, one agent was started by hand, and pods start when all are back".to_owned())
}

/// A runtime that asks for STATUS says on the node that no pod would start there.
fn not_ready(cluster: &Cluster) -> Result<()> {
    wait_until("nodes that say that the plugin serves no pod", NOT_READY_TIME_MAX, || {
        for node in cluster.get_nodes()? {
            let message = message(&node, "Ready");
            ensure!(message.contains(TOLD[1]), "{}: {message}", node["metadata"]["name"]);
        }
        Ok(())
    })
}
