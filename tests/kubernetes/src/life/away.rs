//! The API server, services of nodes, and a node are away for a while.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::probe;
use harness::wait::wait_until;
use nix::sys::signal::Signal;

use super::agents::kill_process;
use super::pods::{self, AT_ONCE, scale, settle};
use crate::agent::metric;
use crate::checks::own;
use crate::cluster::Cluster;
use crate::kubelet;
use crate::pod::Pod;

/// How long the API server is away, as the agents have it.
const AWAY_SECONDS: f64 = 60.0;
const AWAY_TIME_MAX: Duration = Duration::from_secs(120);
const BACK_TIME_MAX: Duration = Duration::from_secs(120);
/// The node that starts again.
const SECOND: usize = 1;

/// While pods come and go; an agent is killed meanwhile, and its next process has to know the nodes. Networks of pods
/// are deleted and added meanwhile, too.
pub(super) fn api_server(cluster: &mut Cluster, pods: &[Pod]) -> Result<String> {
    scale(cluster, AT_ONCE)?;
    cluster.control.stop_api_server()?;
    let (first, others) = cluster.nodes.split_first().context("no node")?;
    kill_process(first)?;
    let (again, others_of_pods): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().partition(|pod| pod.name.starts_with(pods::AGAIN));
    let remade = again.into_iter().map(pods::remake).collect::<Result<Vec<_>>>()?;
    ensure!(!remade.is_empty(), "no pod whose network is made again");
    for pod in &remade {
        reach_each_other(&[&others_of_pods[..], &[pod]].concat())?;
    }
    for node in others.iter().chain([first]) {
        wait_until("an agent that has not heard of the API server", AWAY_TIME_MAX, || {
            let age = metric(node, "podwire_nodes_age_seconds")?;
            ensure!(age >= AWAY_SECONDS, "{}: {age} s", node.name);
            Ok(())
        })?;
        ensure!(metric(node, "podwire_ready")? == 1.0, "{} would serve no ADD", node.name);
        let nodes = metric(node, "podwire_nodes")?;
        ensure!(nodes == cluster.nodes.len() as f64, "{} knows {nodes} nodes", node.name);
    }
    cluster.control.start_api_server()?;
    settle(cluster, AT_ONCE)?;
    for node in &cluster.nodes {
        wait_until("an agent that hears the API server", BACK_TIME_MAX, || {
            ensure!(metric(node, "podwire_nodes_current")? == 1.0, "{} does not", node.name);
            Ok(())
        })?;
    }
    scale(cluster, 0)?;
    settle(cluster, 0)?;
    let count = remade.len();
    Ok(format!(
        "an agent that was killed meanwhile knew the nodes, {count} networks of pods were made again"
    ))
}

/// Kubelet and container runtime of every node, by a signal and by SIGKILL, with pods before and after.
pub(super) fn services(cluster: &mut Cluster) -> Result<String> {
    let taints = cluster.plan.network.taints();
    scale(cluster, AT_ONCE)?;
    settle(cluster, AT_ONCE)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for node in &mut cluster.nodes {
            node.end("kubelet", signal)?;
            node.end("containerd", signal)?;
            cluster.plan.containerd.start(node)?;
            kubelet::start(node, &cluster.control.certificates, &taints)?;
        }
    }
    // What was changed while they were away is done by those of now.
    scale(cluster, AT_ONCE / 2)?;
    settle(cluster, AT_ONCE / 2)?;
    scale(cluster, AT_ONCE)?;
    settle(cluster, AT_ONCE)?;
    scale(cluster, 0)?;
    settle(cluster, 0)?;
    Ok("by SIGTERM and SIGKILL".to_owned())
}

/// The object of the second node is deleted, with its pods and its pod networks, and the kubelet makes it anew.
pub(super) fn node_object(cluster: &mut Cluster) -> Result<String> {
    let name = cluster.nodes[SECOND].name.clone();
    let before = cluster.members[SECOND].pod_cidrs.clone();
    let all = cluster.nodes.len() as f64;
    cluster.control.kubectl.run(&format!("delete node {name}"))?;
    known(cluster, all - 1.0)?;
    cluster.nodes[SECOND].end("kubelet", Signal::SIGTERM)?;
    let taints = cluster.plan.network.taints();
    kubelet::start(&mut cluster.nodes[SECOND], &cluster.control.certificates, &taints)?;
    cluster.wait_until_ready()?;
    own::look(cluster)?;
    known(cluster, all)?;
    cluster.learn_members()?;
    reach_each_other(&pods::start(cluster)?.iter().collect::<Vec<_>>())?;
    pods::remove(cluster)?;
    let now = &cluster.members[SECOND].pod_cidrs;
    ensure!(now.iter().all(|cidr| !before.contains(cidr)), "{name} has {now:?} as before");
    Ok(format!("{name} had {}, and has {}", before.join(", "), now.join(", ")))
}

/// Waits until the first node's agent knows as many nodes.
fn known(cluster: &Cluster, count: f64) -> Result<()> {
    wait_until("an agent that knows the nodes", BACK_TIME_MAX, || {
        let nodes = metric(&cluster.nodes[0], "podwire_nodes")?;
        ensure!(nodes == count, "it knows {nodes}, not {count}");
        Ok(())
    })
}

fn reach_each_other(pods: &[&Pod]) -> Result<()> {
    for from in pods {
        for to in pods.iter().flat_map(|pod| &pod.addresses) {
            probe::ping(&from.namespace, *to).with_context(|| format!("{} to {to}", from.name))?;
        }
    }
    Ok(())
}

/// The second node, as after a loss of power: processes, interfaces, pins and files are gone.
pub(super) fn reboot(cluster: &mut Cluster) -> Result<String> {
    let before = pods::start(cluster)?;
    cluster.reboot(SECOND)?;
    let old = before.iter().find(|pod| pod.name == pods::FAR).context("no pod there")?;
    let pods = wait_until("pods on the node that started again", BACK_TIME_MAX, || {
        let pods = pods::read(cluster)?;
        let is_new = |pod: &&Pod| pod.name == pods::FAR && pod.sandbox != old.sandbox;
        ensure!(pods.iter().any(|pod| is_new(&pod)), "the pod there is that of before");
        Ok(pods)
    })?;
    reach_each_other(&pods.iter().collect::<Vec<_>>())?;
    pods::remove(cluster)?;
    Ok("its pods are back and reach all others".to_owned())
}
