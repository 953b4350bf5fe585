//! Agents are exchanged, killed, and taken away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::render::file;
use harness::wait::wait_until;
use harness::{another_build, binaries, bpf, command};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use serde_json::Value;

use super::pods::{AT_ONCE, scale, settle};
use crate::agent::{self, NAMESPACE};
use crate::cluster::Cluster;
use crate::kubectl::{condition, message};
use crate::node::Node;
use crate::programs;
use crate::watch::Watch;

const IMAGE: &str = "docker.io/podwire/podwire:0.1.0";
const NEXT_IMAGE: &str = "docker.io/podwire/podwire:next";
/// Label of a node for a moment.
const LAST_SEEN: &str = "podwire.dev/last-seen";
const READY_TIME_MAX: Duration = Duration::from_secs(90);

/// Agents that the API server knows: name, node, image, and whether each is Ready.
pub(super) fn agents(cluster: &Cluster) -> Result<Vec<(String, String, String, bool)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let described = |pod: &Value| {
        let image = text(&pod["spec"]["containers"][0]["image"]);
        (
            text(&pod["metadata"]["name"]),
            text(&pod["spec"]["nodeName"]),
            image,
            condition(pod, "Ready"),
        )
    };
    Ok(agent::pods(&cluster.control.kubectl)?.iter().map(described).collect())
}

/// Waits until each node has one agent, with this image, that is none of those of before.
pub(super) fn wait_for_agents(cluster: &Cluster, image: &str, before: &[String]) -> Result<()> {
    wait_until("agents that are Ready", READY_TIME_MAX, || {
        let agents = agents(cluster)?;
        let is_new = |(name, _, with, ready): &(String, String, String, bool)| {
            *ready && with == image && !before.contains(name)
        };
        let count = cluster.nodes.len();
        ensure!(agents.len() == count && agents.iter().all(is_new), "{agents:?}");
        Ok(())
    })
}

/// Another build, and back: all agents and their programs are exchanged, as with any upgrade.
pub(super) fn roll(cluster: &Cluster) -> Result<String> {
    // Not below /run, of which nodes have their own.
    let archive = next_image(&programs::directory()?.join("images/next"))?;
    for node in &cluster.nodes {
        cluster.plan.containerd.import(node, std::slice::from_ref(&archive))?;
    }
    let mut exchanged = 0;
    for image in [NEXT_IMAGE, IMAGE] {
        let before: Vec<String> = agents(cluster)?.into_iter().map(|(name, ..)| name).collect();
        let tags = program_tags(cluster)?;
        let set = format!("set image daemonset/podwire --namespace {NAMESPACE} *={image}");
        cluster.control.kubectl.run(&set)?;
        wait_for_agents(cluster, image, &before)?;
        let now = program_tags(cluster)?;
        ensure!(tags.iter().zip(&now).all(|(tag, now)| tag != now), "{tags:?} stay: {now:?}");
        exchanged += before.len();
    }
    Ok(format!("{exchanged} agents and their programs exchanged"))
}

/// What the kernel makes of the instructions of one of the programs, on each node.
fn program_tags(cluster: &Cluster) -> Result<Vec<Value>> {
    let show = "bpftool -j prog show pinned /sys/fs/bpf/podwire/programs/pw_from_pod";
    let tag = |node: &Node| Ok(node.json(show)?["tag"].clone());
    cluster.nodes.iter().map(tag).collect()
}

fn next_image(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    another_build::make(&binaries::agent()?, &directory.join("podwire-agent"))?;
    fs::copy(binaries::plugin()?, directory.join("podwire"))?;
    let archive = directory.join("image.tar");
    let mut pack = Command::new(binaries::xtask()?);
    pack.args(["image", "--name", NEXT_IMAGE]).arg("--output").arg(&archive);
    command::run(pack.arg(format!("--built={}", directory.display())))?;
    Ok(archive)
}

/// Kills the agent of one node after the other, and its pod with it: containers that fail often wait.
pub(super) fn kill(cluster: &Cluster, times: usize) -> Result<String> {
    for (number, node) in cluster.nodes.iter().cycle().take(times).enumerate() {
        scale(cluster, if number % 2 == 0 { AT_ONCE } else { 0 })?;
        let agents = agents(cluster)?;
        let (name, _, image, _) =
            agents.iter().find(|(_, on, ..)| *on == node.name).context("no agent")?.clone();
        kill_process(node)?;
        let delete =
            format!("delete pod --namespace {NAMESPACE} {name} --grace-period=1 --wait=false");
        cluster.control.kubectl.run(&delete)?;
        wait_for_agents(cluster, &image, &[name])?;
    }
    scale(cluster, AT_ONCE)?;
    settle(cluster, AT_ONCE)?;
    scale(cluster, 0)?;
    settle(cluster, 0)?;
    Ok(format!("{times} times"))
}

/// Does something to the agents. The runtime that asks the plugin for its STATUS says to the kubelet what that answers:
/// no node may stop being Ready meanwhile.
pub(super) fn nodes_stay_ready<T>(
    cluster: &Cluster,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let kubectl = &cluster.control.kubectl;
    let watch = Watch::new(kubectl, "/api/v1/nodes", "")?;
    let done = work()?;
    let last = &cluster.nodes[0].name;
    // Behind all that was told before.
    kubectl.run(&format!("label node {last} {LAST_SEEN}=true"))?;
    let looked = watch.until("the end of what is told", READY_TIME_MAX, |heard| {
        if !condition(&heard.object, "Ready") {
            let why = message(&heard.object, "Ready");
            return Some(Err(anyhow!("{} was not Ready: {why}", heard.name())));
        }
        let is_last = heard.object["metadata"]["labels"][LAST_SEEN].is_string();
        is_last.then_some(Ok(()))
    });
    kubectl.run(&format!("label node {last} {LAST_SEEN}-"))?;
    looked?.map(|()| done)
}

/// Kills the agent's process with SIGKILL.
pub(super) fn kill_process(node: &Node) -> Result<()> {
    let id = agent::process(node)?;
    Ok(send(Pid::from_raw(id.cast_signed()), Signal::SIGKILL)?)
}

/// As docs/kubernetes.md says it, on each node with the image alone: no agent, no API server.
pub(super) fn uninstall(cluster: &Cluster) -> Result<String> {
    let manifest = file("deploy/podwire.yaml");
    cluster.control.kubectl.run(&format!("delete --filename {}", manifest.display()))?;
    wait_until("the end of the agents", READY_TIME_MAX, || {
        ensure!(agents(cluster)?.is_empty(), "they are there");
        Ok(())
    })?;
    let ctr = cluster.plan.containerd.ctr()?;
    let mut removed = 0;
    for node in &cluster.nodes {
        // As docs/kubernetes.md has it: after a reboot they may be missing.
        node.run("mkdir -p /run/podwire /opt/cni/bin /etc/cni/net.d")?;
        let mounts: String = ["/sys/fs/bpf", "/run/podwire", "/opt/cni/bin", "/etc/cni/net.d"]
            .map(|path| format!("--mount type=bind,src={path},dst={path},options=rbind:rw "))
            .concat();
        let run = |number: usize, option: &str| {
            node.run(&format!(
                "{ctr} --namespace k8s.io run --rm --privileged --net-host {mounts} {IMAGE} \
                 podwire-uninstall-{number} /podwire-agent uninstall {option}"
            ))
        };
        let said = run(0, "--dry-run")?;
        let is_there = node.inside("sys/fs/bpf/podwire/maps").exists();
        ensure!(said.contains("would remove ") && is_there, "{said}");
        // The second time also the plugin, which is kept for pods that the runtime has yet to delete.
        let said = [run(1, "--cut-pods")?, run(2, "--cut-pods")?].concat();
        removed += said.lines().filter(|line| line.starts_with("removed ")).count();
        nothing_left(node).with_context(|| said)?;
    }
    Ok(format!("{removed} lines said what was removed"))
}

fn nothing_left(node: &Node) -> Result<()> {
    let links = node.run("ip -oneline link")?;
    let is_ours = |link: &&str| link.contains("podwire") || link.contains(": pw");
    let mut left: Vec<String> = links.lines().filter(is_ours).map(str::to_owned).collect();
    let tables = node.run("nft list tables")?;
    left.extend(tables.lines().filter(|table| table.contains("podwire")).map(str::to_owned));
    let neighbours = node.run("ip neighbour show proto 157")?;
    left.extend(neighbours.lines().map(str::to_owned));
    left.extend(bpf::on_tcx(&node.namespace)?);
    for directory in
        ["sys/fs/bpf", "sys/fs/bpf/podwire", "run/podwire", "opt/cni/bin", "etc/cni/net.d"]
    {
        let names = fs::read_dir(node.inside(directory)).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let whole = matches!(directory, "sys/fs/bpf/podwire" | "run/podwire");
        let names =
            names.filter(|name| whole || (name.contains("podwire") && directory != "sys/fs/bpf"));
        left.extend(names.map(|name| format!("{directory}/{name}")));
    }
    ensure!(left.is_empty(), "left on {}: {left:?}", node.name);
    Ok(())
}
