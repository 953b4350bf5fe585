//! GC removes what the runtime does not name, whatever state it is in.

use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::probe;

use super::traces;

const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 8;

#[test]
fn gc_removes_all_of_its_network_but_the_valid() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let (valid, stale) = (node.pod()?, node.pod()?);
        let mut foreign = node.cni_configuration();
        foreign["name"] = "another".into();
        let other = node.bare_pod()?;
        let netns = other.netns();
        let call = CniCall { command: "ADD", container_id: &other.container_id, netns: &netns };
        node.cni_with(&call, &foreign)?.map_err(|error| anyhow!("ADD: {error}"))?;

        let before = traces::of_pods(node)?;
        for configuration in [node.cni_configuration(), with(node, &json!([{ "ifname": "eth0" }]))]
        {
            let error = gc(node, &configuration)?.err().context("it worked without a list")?;
            ensure!(error["code"] == 7, "{error}");
            ensure!(traces::of_pods(node)? == before, "something is gone");
        }

        // The interface belongs to what names an attachment.
        let list = json!([
            { "containerID": valid.container_id, "ifname": "eth0" },
            { "containerID": stale.container_id, "ifname": "eth1" },
        ]);
        well(node, &list)?;
        ensure!(traces::interfaces(&stale.namespace)? == ["lo"]);
        ensure!(traces::interfaces(&other.namespace)?.contains(&"eth0".to_owned()));
        traces::check(&valid)?.map_err(|error| anyhow!("CHECK: {error}"))?;
        probe::ping(&valid.namespace, node.gateways[0])?;
        stale.delete()?;

        well(node, &json!([]))?;
        ensure!(traces::interfaces(&valid.namespace)? == ["lo"]);
        ensure!(traces::interfaces(&other.namespace)?.contains(&"eth0".to_owned()));
        gc(node, &with_valid(&foreign, &json!([])))?.map_err(|error| anyhow!("GC: {error}"))?;
        traces::ensure_none(node, &other)
    });
}

/// Behind each step, all at once: with interface and without, known to the agent and not.
#[test]
fn gc_removes_what_killed_adds_left() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let steps = command::run(Command::new(binaries::fault_plugin()?).arg("--fault-steps"))?;
        let pods: Vec<Pod> = steps
            .lines()
            .map(|step| {
                let pod = node.bare_pod()?;
                traces::killed_add(&pod, step)?;
                Ok(pod)
            })
            .collect::<Result<_>>()?;
        let renamed = node.pod()?;
        node.namespace.run(&format!("ip link set {} down", renamed.host_ifname()?))?;
        node.namespace.run(&format!("ip link set {} name by-hand", renamed.host_ifname()?))?;
        let left = traces::of_pods(node)?;
        ensure!(left.len() > 2 * pods.len(), "{left:?}");
        well(node, &json!([]))?;
        for pod in pods.iter().chain([&renamed]) {
            traces::ensure_none(node, pod).context(pod.container_id.clone())?;
        }
        let names = traces::interfaces(&node.namespace)?;
        ensure!(!names.contains(&"by-hand".to_owned()), "{names:?}");
        well(node, &json!([]))
    });
}

/// The runtime must not call it then; one that does loses nothing that it was told to have.
#[test]
fn gc_during_adds_leaves_all_or_nothing_of_each() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for _ in 0..ROUNDS {
            let mut pods: Vec<Pod> =
                (0..IN_FLIGHT).map(|_| node.bare_pod()).collect::<Result<_>>()?;
            thread::scope(|scope| -> Result<()> {
                let adds: Vec<_> =
                    pods.iter_mut().map(|pod| scope.spawn(move || pod.add())).collect();
                while !adds.iter().all(thread::ScopedJoinHandle::is_finished) {
                    // Attachments that share a lock with a running call may be left.
                    if let Err(error) = gc(node, &with(node, &json!([])))? {
                        ensure!(error["code"] == 11, "{error}");
                    }
                }
                adds.into_iter().try_for_each(|add| add.join().expect("a thread"))
            })?;
            for pod in &pods {
                if traces::interfaces(&pod.namespace)?.len() > 1 {
                    traces::check(pod)?.map_err(|error| anyhow!("CHECK: {error}"))?;
                    probe::ping(&node.namespace, pod.addresses[0])?;
                }
            }
            well(node, &json!([]))?;
            let left = traces::of_pods(node)?;
            ensure!(left.is_empty(), "left: {left:?}");
        }
        Ok(())
    });
}

fn with(node: &Node, valid: &Value) -> Value {
    with_valid(&node.cni_configuration(), valid)
}

/// What a runtime gives to GC.
pub(crate) fn with_valid(configuration: &Value, valid: &Value) -> Value {
    let mut configuration = configuration.clone();
    configuration["cni.dev/valid-attachments"] = valid.clone();
    configuration
}

fn well(node: &Node, valid: &Value) -> Result<()> {
    let document = gc(node, &with(node, valid))?.map_err(|error| anyhow!("GC: {error}"))?;
    ensure!(document.is_null(), "{document}");
    Ok(())
}

fn gc(node: &Node, configuration: &Value) -> Result<Result<Value, Value>> {
    let call = CniCall { command: "GC", container_id: "", netns: Path::new("") };
    node.cni_with(&call, configuration)
}
