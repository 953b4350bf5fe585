//! The plugin: parallel, killed, repeated.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;

const AT_ONCE: usize = 50;

#[test]
fn fifty_adds_at_once_and_fifty_dels() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        let empty = traces(node)?;
        let pods = in_parallel(AT_ONCE, || node.pod())?;
        let addresses: BTreeSet<&IpAddr> = pods.iter().flat_map(|pod| &pod.addresses).collect();
        ensure!(addresses.len() == 2 * AT_ONCE, "only {} addresses", addresses.len());
        // All of them work, not only the first.
        let _server = Server::start(&pods[0].namespace, &pods[0].addresses)?;
        for pod in &pods[1..] {
            probe::udp(&pod.namespace, pods[0].addresses[0], 100)?;
            probe::udp(&pod.namespace, pods[0].addresses[1], 100)?;
        }
        let deletions: Vec<Result<()>> = thread::scope(|scope| {
            let threads: Vec<_> = pods.iter().map(|pod| scope.spawn(|| pod.delete())).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        deletions.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(traces(node)? == empty, "left: {:?}", traces(node)?);
        Ok(())
    });
}

fn in_parallel<T: Send>(count: usize, work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    })
}

#[test]
fn a_plugin_killed_at_any_step_leaves_nothing_behind_a_del() {
    Cluster::builder(Mode::Vxlan).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let steps = command::run(Command::new(binaries::plugin()?).arg("--fault-steps"))
            .context("build the plugin with --features cni-shim/fault-injection")?;
        ensure!(steps.lines().count() > 5, "steps: {steps}");
        let empty = traces(node)?;
        for step in steps.lines() {
            let mut pod = node.bare_pod()?;
            kill_add(&pod, step)?;
            pod.delete().with_context(|| format!("killed at {step}"))?;
            let left = traces(node)?;
            ensure!(left == empty, "killed at {step}: left {left:?}");
            // The same container again, whose interface is also gone in its namespace.
            pod.add().with_context(|| format!("killed at {step}, deleted, added"))?;
            probe::ping(&pod.namespace, node.gateways[0])?;
            pod.delete()?;
            ensure!(traces(node)? == empty, "after {step} and all");
        }
        Ok(())
    });
}

/// Without a DEL too, a second ADD finds its way.
fn kill_add(pod: &Pod, step: &str) -> Result<()> {
    let netns = pod.netns();
    let call = CniCall { command: "ADD", container_id: &pod.container_id, netns: &netns };
    let mut command = pod.node.cni_command(&call);
    command.env("PODWIRE_FAULT_KILL", step);
    let output = command::feed(&mut command, &pod.node.cni_configuration().to_string())?;
    ensure!(!output.status.success(), "it survived {step}");
    ensure!(output.stdout.is_empty(), "it spoke");
    Ok(())
}

#[test]
fn del_succeeds_again_and_without_the_agent() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let empty = traces(node)?;
        let pod = node.pod()?;
        pod.delete()?;
        pod.delete()?;
        ensure!(traces(node)? == empty, "left {:?}", traces(node)?);

        let other = node.pod()?;
        node.kill_agent();
        other.delete()?;
        ensure!(!interfaces(node)?.contains(&other.host_ifname()?), "its interface is there");
        Ok(())
    });
}

#[test]
fn check_tells_what_is_wrong() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let pod = cluster.node(1).pod()?;
        let mut configuration = pod.node.cni_configuration();
        configuration["prevResult"] = pod.result.clone();
        let netns = pod.netns();
        let call = CniCall { command: "CHECK", container_id: &pod.container_id, netns: &netns };
        let check = || pod.node.cni_with(&call, &configuration);
        check()?.map_err(|error| anyhow::anyhow!("CHECK: {error}"))?;
        pod.namespace.ip("route delete default")?;
        let error = check()?.err().context("a missing route is not seen")?;
        ensure!(error["msg"].is_string(), "{error}");
        Ok(())
    });
}

#[test]
fn bad_requests_get_errors_with_their_codes() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let nowhere = CniCall {
            command: "ADD",
            container_id: "x",
            netns: Path::new("/run/netns/there-is-none"),
        };
        let error = node.cni(&nowhere)?.err().context("ADD to nowhere worked")?;
        ensure!(error.to_string().contains("there-is-none"), "{error}");
        let unknown = CniCall { command: "FROB", ..nowhere };
        let error = node.cni(&unknown)?.err().context("FROB worked")?;
        ensure!(error["code"] == 4, "{error}");
        let unnamed = CniCall { container_id: "", ..nowhere };
        let error = node.cni(&unnamed)?.err().context("no container worked")?;
        ensure!(error["code"] == 4, "{error}");
        let old = serde_json::json!({ "cniVersion": "9.0.0", "name": "a", "type": "podwire" });
        let error = node.cni_with(&nowhere, &old)?.err().context("version 9 worked")?;
        ensure!(error["code"] == 1, "{error}");
        Ok(())
    });
}

/// All that pods leave on a node: interfaces, pins, files, entries.
fn traces(node: &Arc<Node>) -> Result<BTreeSet<String>> {
    let mut traces = interfaces(node)?;
    for directory in [node.bpffs.join("links"), node.directory.join("attachments")] {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            traces.insert(entry?.path().display().to_string());
        }
    }
    let keys = node.map("pw_pods")?;
    traces.extend(keys.iter().map(|entry| entry["key"].to_string()));
    Ok(traces)
}

fn interfaces(node: &Arc<Node>) -> Result<BTreeSet<String>> {
    let links = node.namespace.run("ip -br link")?;
    Ok(links.lines().filter_map(|line| line.split(['@', ' ']).next().map(str::to_owned)).collect())
}
