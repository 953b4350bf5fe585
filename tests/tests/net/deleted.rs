//! DEL, in the states in which runtimes call it.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::probe;

use super::traces;

#[test]
fn del_before_any_add_and_with_no_or_another_namespace() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let never = node.bare_pod()?;
        never.delete()?;
        del(node, &never.container_id, Path::new(""))?;
        let unset = node.pod()?;
        del(node, &unset.container_id, Path::new(""))?;
        traces::ensure_none(node, &unset)?;
        // Late: the path is another pod's by now, which has an interface of the same name.
        let (late, other) = (node.pod()?, node.pod()?);
        del(node, &late.container_id, &other.netns())?;
        ensure!(traces::interfaces(&late.namespace)? == ["lo"]);
        traces::check(&other)?.map_err(|error| anyhow!("CHECK: {error}"))?;
        probe::ping(&node.namespace, other.addresses[0])?;
        other.delete()
    });
}

#[test]
fn del_when_the_namespace_is_gone() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for agent in [true, false] {
            let Pod { namespace, container_id, .. } = node.pod()?;
            let path = namespace.path();
            drop(namespace);
            if !agent {
                node.kill_agent();
            }
            del(node, &container_id, &path)?;
            del(node, &container_id, &path)?;
            let left = traces::kernel_traces(node)?;
            ensure!(left.is_empty(), "left: {left:?}");
            if agent {
                let left = traces::of_pods(node)?;
                ensure!(left.is_empty(), "left: {left:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn del_when_the_interface_is_renamed_or_deleted_by_hand() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for agent in [true, false] {
            let inside = node.pod()?;
            inside.namespace.run("ip link set eth0 down")?;
            inside.namespace.run("ip link set eth0 name wan0")?;
            let (renamed, deleted) = (node.pod()?, node.pod()?);
            let name = renamed.host_ifname()?;
            node.namespace.run(&format!("ip link set {name} down"))?;
            node.namespace.run(&format!("ip link set {name} name by-hand"))?;
            node.namespace.run(&format!("ip link delete {}", deleted.host_ifname()?))?;
            if !agent {
                node.kill_agent();
            }
            for pod in [&inside, &renamed, &deleted] {
                pod.delete()?;
                ensure!(traces::interfaces(&pod.namespace)? == ["lo"]);
            }
            let left = traces::kernel_traces(node)?;
            ensure!(left.is_empty(), "left: {left:?}");
            let names = traces::interfaces(&node.namespace)?;
            ensure!(!names.contains(&"by-hand".to_owned()), "{names:?}");
            if agent {
                let left = traces::of_pods(node)?;
                ensure!(left.is_empty(), "left: {left:?}");
            }
        }
        Ok(())
    });
}

fn del(node: &Node, container_id: &str, netns: &Path) -> Result<()> {
    let call = CniCall { command: "DEL", container_id, netns };
    let document = node.cni(&call)?.map_err(|error| anyhow!("DEL: {error}"))?;
    ensure!(document == Value::Null, "{document}");
    Ok(())
}
