//! The agent dies and comes back; pods do not notice.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::flow::{self, Flow};
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::server::{ECHO_PORT, Server};
use tests::wait::wait_until;
use tests::{another_build, binaries, command};

use super::traces;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);

/// How an agent goes away.
#[derive(Clone, Copy, Debug)]
enum Death {
    Sigkill,
    Sigterm,
    /// SIGKILL, and again when the next one is about to take over what is pinned.
    WhileItStarts,
}

impl Death {
    fn strike(self, node: &Node) -> Result<()> {
        match self {
            Self::Sigkill => node.kill_agent(),
            Self::Sigterm => node.stop_agent()?,
            Self::WhileItStarts => {
                node.kill_agent();
                let lines = || node.read_log().lines().count();
                let before = lines();
                node.spawn_agent()?;
                wait_until("a sign of life", SEEN_TIME_MAX, || {
                    ensure!(lines() > before, "nothing in the log");
                    Ok(())
                })?;
                node.kill_agent();
            }
        }
        Ok(())
    }
}

const DEATHS: [Death; 6] = [
    Death::Sigkill,
    Death::Sigterm,
    Death::WhileItStarts,
    Death::Sigkill,
    Death::Sigterm,
    Death::WhileItStarts,
];

#[test]
fn nothing_is_lost_in_direct_mode() {
    Cluster::builder(Mode::Direct).test(nothing_is_lost);
}

#[test]
fn nothing_is_lost_in_vxlan_mode() {
    Cluster::builder(Mode::Vxlan).test(nothing_is_lost);
}

fn nothing_is_lost(cluster: &Cluster) -> Result<()> {
    let pods = under_traffic(cluster, |streams| {
        let before = ids(cluster)?;
        restarts(cluster, streams)?;
        let after = ids(cluster)?;
        ensure!(before == after, "other ids than before: {before:?}, {after:?}");
        Ok(())
    })?;
    let one = cluster.node(1);
    let known = one.status()?["pods"].as_array().map(Vec::len);
    ensure!(known == Some(2), "node1 knows {known:?} pods");
    let late = one.pod()?;
    ensure!(!late.addresses.iter().any(|a| pods.iter().any(|pod| pod.addresses.contains(a))));
    probe::ping(&late.namespace, pods[2].addresses[0])
}

/// Two pods of the first node and one of the second: what they send arrives, whatever happens meanwhile.
fn under_traffic(
    cluster: &Cluster,
    work: impl FnOnce(&mut [Stream]) -> Result<()>,
) -> Result<[Pod; 3]> {
    let (one, two) = (cluster.node(1), cluster.node(2));
    let (from, local, remote) = (one.pod()?, one.pod()?, two.pod()?);
    let _servers = [
        Server::start(&local.namespace, &local.addresses)?,
        Server::start(&remote.namespace, &remote.addresses)?,
    ];
    let mut streams = [
        Stream::open(&from, &local, 0)?,
        Stream::open(&from, &remote, 0)?,
        Stream::open(&from, &remote, 1)?,
    ];
    let flow = |from: &Pod, to: &Pod| Flow {
        name: format!("{} to {}", from.container_id, to.container_id),
        from: from.namespace.clone(),
        to: to.namespace.clone(),
        addresses: to.addresses.to_vec(),
    };
    let flows = [flow(&from, &local), flow(&from, &remote), flow(&remote, &from)];
    flow::nothing_is_lost(&flows, || work(&mut streams))?;
    Ok([from, local, remote])
}

/// Its programs take the place of those that are there, and the other way round.
#[test]
fn nothing_is_lost_when_agents_of_another_build_take_over() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let own = binaries::agent()?;
            let other = cluster.run().directory().join("podwire-agent");
            another_build::make(&own, &other)?;
            let pods = under_traffic(cluster, |streams| {
                for binary in [&other, &own] {
                    take_over(cluster, binary, streams)?;
                }
                Ok(())
            })?;
            for pod in &pods {
                traces::check(pod)?.map_err(|error| anyhow::anyhow!("CHECK: {error}"))?;
            }
            Ok(())
        });
    }
}

fn take_over(cluster: &Cluster, binary: &Path, streams: &mut [Stream]) -> Result<()> {
    let before = ids(cluster)?;
    for node in cluster.nodes() {
        node.stop_agent()?;
        node.spawn_agent_of(binary)?;
        node.wait_for_agent()?;
        streams.iter_mut().try_for_each(Stream::exchange)?;
    }
    let after = ids(cluster)?;
    ensure!(before.keys().eq(after.keys()), "other pins: {before:?}, {after:?}");
    for (name, id) in &before {
        let is_program = name.contains("/programs/");
        ensure!((after[name] != *id) == is_program, "{name} was {id}, is {}", after[name]);
    }
    Ok(())
}

fn restarts(cluster: &Cluster, streams: &mut [Stream]) -> Result<()> {
    for death in DEATHS {
        for node in cluster.nodes() {
            death.strike(node)?;
            streams
                .iter_mut()
                .try_for_each(Stream::exchange)
                .with_context(|| format!("{death:?}"))?;
            node.spawn_agent()?;
            node.wait_for_agent()?;
            streams.iter_mut().try_for_each(Stream::exchange).context("it is back")?;
        }
    }
    Ok(())
}

/// Kernel ids of all pinned programs and links of all nodes.
fn ids(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let mut ids = BTreeMap::new();
    for node in cluster.nodes() {
        for (kind, directory) in [("prog", "programs"), ("link", "links"), ("map", "maps")] {
            for entry in fs::read_dir(node.bpffs.join(directory))? {
                let pin = entry?.path();
                let mut bpftool = Command::new("bpftool");
                bpftool.args(["-j", kind, "show", "pinned"]).arg(&pin);
                let shown: Value = serde_json::from_str(&command::run(&mut bpftool)?)?;
                ensure!(shown["id"].is_u64(), "{shown}");
                ids.insert(pin.display().to_string(), shown["id"].clone());
            }
        }
    }
    ensure!(ids.len() > 20, "{ids:?}");
    Ok(ids)
}

/// A TCP connection to an echo.
struct Stream(TcpStream);

impl Stream {
    fn open(from: &Pod, to: &Pod, family: usize) -> Result<Self> {
        let to = SocketAddr::new(to.addresses[family], ECHO_PORT);
        let stream = from.namespace.enter(|| TcpStream::connect(to))?;
        stream.set_read_timeout(Some(SEEN_TIME_MAX))?;
        Ok(Self(stream))
    }

    fn exchange(&mut self) -> Result<()> {
        let sent = [7; 20_000];
        let mut got = [0; 20_000];
        self.0.write_all(&sent).context("write")?;
        self.0.read_exact(&mut got).context("read")?;
        ensure!(got == sent, "other bytes came back");
        Ok(())
    }
}

#[test]
fn while_the_agent_is_away() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        for death in [Death::Sigkill, Death::Sigterm] {
            away(cluster, death).with_context(|| format!("{death:?}"))?;
        }
        let log = cluster.node(1).read_log();
        ensure!(log.contains("stopped; pods keep their network"), "no farewell after SIGTERM");
        Ok(())
    });
}

fn away(cluster: &Cluster, death: Death) -> Result<()> {
    let node = cluster.node(1);
    let (pod, other, remote) = (node.pod()?, node.pod()?, cluster.node(2).pod()?);
    death.strike(node)?;
    let error = node.status_text(&[]).err().context("status works without an agent")?.to_string();
    let socket = node.socket().display().to_string();
    for text in ["no agent listens", &socket, "keep their network", "podwire-agent run"] {
        ensure!(error.contains(text), "{text} is not in {error}");
    }
    traces::check(&pod)?.map_err(|error| anyhow::anyhow!("CHECK: {error}"))?;
    probe::ping(&pod.namespace, remote.addresses[0])?;
    probe::ping(&node.namespace, remote.addresses[1])?;
    other.delete()?;
    let before = traces::kernel_traces(node)?;
    ensure!(!before.contains(&other.host_ifname()?), "{before:?}");

    let mut late = node.bare_pod()?;
    thread::scope(|scope| -> Result<()> {
        let add = scope.spawn(|| late.add());
        wait_until("the interface of the ADD that waits", SEEN_TIME_MAX, || {
            ensure!(traces::kernel_traces(node)?.len() == before.len() + 3, "not yet");
            Ok(())
        })?;
        ensure!(!add.is_finished(), "ADD did not wait");
        node.spawn_agent()?;
        node.wait_for_agent()?;
        add.join().expect("a thread")
    })?;
    probe::ping(&late.namespace, remote.addresses[0])?;
    probe::ping(&remote.namespace, late.addresses[1])?;
    pod.delete()?;
    late.delete()
}

#[test]
fn what_is_removed_below_run_comes_back_while_the_agent_runs() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.pod()?;
        for name in ["agent.sock", "plugin.json", "lock"] {
            fs::remove_file(node.directory.join(name)).context(name)?;
        }
        for name in ["locks", "attachments"] {
            fs::remove_dir_all(node.directory.join(name)).context(name)?;
        }
        node.wait_for_agent()?;
        let file = format!("attachments/{}.json", pod.host_ifname()?);
        wait_until("the attachment", SEEN_TIME_MAX, || {
            ensure!(node.directory.join(&file).exists(), "{file} is missing");
            Ok(())
        })?;
        let second = node.pod()?;
        ensure!(second.addresses != pod.addresses, "{:?} twice", pod.addresses);
        second.delete()?;
        pod.delete()
    });
}
