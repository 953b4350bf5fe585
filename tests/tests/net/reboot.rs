//! A node that starts again: nothing of the pods, pins and state of before is there.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use tests::cluster::{Cluster, Mode};
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::probe;

use super::traces;

const PODS: usize = 4;

/// Of the directory in which the agent keeps what it knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is on a tmpfs, as below /run.
    Lost,
    /// It is on a disk.
    Kept,
}

#[test]
fn the_first_adds_after_a_reboot_work() {
    first_adds_work(State::Lost);
}

#[test]
fn the_first_adds_after_a_reboot_that_keeps_the_state_work() {
    first_adds_work(State::Kept);
}

fn first_adds_work(state: State) {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let (node, remote) = (cluster.node(1), cluster.node(2).pod()?);
        let before: Vec<Pod> = (0..PODS).map(|_| node.pod()).collect::<Result<_>>()?;
        let ids: Vec<String> = before.iter().map(|pod| pod.container_id.clone()).collect();
        reboot(node, before, state)?;
        node.spawn_agent()?;
        node.wait_for_agent()?;
        let mut addresses: BTreeSet<IpAddr> = remote.addresses.iter().copied().collect();
        let mut pods = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            let pod = node.pod()?;
            addresses.extend(pod.addresses.iter().copied());
            pods.push(pod);
            // Runtimes clean up what they knew of before, also between the first ADDs, or forget it.
            if state == State::Lost || index % 2 == 0 {
                let call = CniCall { command: "DEL", container_id: id, netns: Path::new("") };
                node.cni(&call)?.map_err(|error| anyhow!("DEL of {id}: {error}"))?;
            }
        }
        ensure!(addresses.len() == 2 * (PODS + 1), "an address twice: {addresses:?}");
        for pod in &pods {
            traces::check(pod)?.map_err(|error| anyhow!("CHECK: {error}"))?;
            for address in pod.addresses.iter().chain(&remote.addresses) {
                probe::ping(&pods[0].namespace, *address)?;
            }
        }
        pods.iter().try_for_each(Pod::delete)?;
        if state == State::Kept {
            traces::wait_for_sweep(node)?;
        }
        let left = traces::of_pods(node)?;
        ensure!(left.is_empty(), "left: {left:?}");
        let problems = node.status()?["problems"].to_string();
        ensure!(problems == "[]", "{problems}");
        Ok(())
    });
}

/// What a kernel forgets that starts anew, and what a tmpfs does.
fn reboot(node: &Node, pods: Vec<Pod>, state: State) -> Result<()> {
    node.kill_agent();
    drop(pods);
    for device in ["podwire0", "podwire-vxlan"] {
        node.namespace.run(&format!("ip link delete {device}"))?;
    }
    node.namespace.run("nft delete table inet podwire")?;
    for directory in ["links", "maps", "programs"] {
        let pins = node.bpffs.join(directory);
        for pin in fs::read_dir(&pins)? {
            fs::remove_file(pin?.path())?;
        }
        fs::remove_dir(pins)?;
    }
    if state == State::Kept {
        return Ok(());
    }
    for directory in ["attachments", "locks"] {
        fs::remove_dir_all(node.directory.join(directory))?;
    }
    for file in ["plugin.json", "agent.sock", "lock"] {
        fs::remove_file(node.directory.join(file)).context(file)?;
    }
    for file in ["missing.json", "nodes.json", "uplinks.json"] {
        match fs::remove_file(node.directory.join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
