//! The agent dies and comes back; pods do not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::server::{ECHO_PORT, Server};
use tests::wait::{self, wait_until};

use super::traces;

const INTERVAL: Duration = Duration::from_millis(1);
const PORT: u16 = 9100;
/// Seconds of packets: a receiver that is not scheduled loses none.
const RECEIVE_BYTES: usize = 16 << 20;
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
    let before = ids(cluster)?;
    let is_over = AtomicBool::new(false);
    let flows = [(&from, &local), (&from, &remote), (&remote, &from)];
    let (result, counts) = thread::scope(|scope| {
        let flows = flows.map(|(from, to)| scope.spawn(|| flow(from, to, &is_over)));
        let result = restarts(cluster, &mut streams);
        is_over.store(true, Ordering::Relaxed);
        (result, flows.map(|flow| flow.join().expect("a thread")))
    });
    result?;
    for (counts, (from, to)) in counts.into_iter().zip(flows) {
        let Counts { sent, arrived, twice, missing } = counts?;
        let way = format!("{} to {}", from.container_id, to.container_id);
        ensure!(sent > 1000, "{way}: only {sent} packets");
        ensure!(
            arrived == sent && twice == 0,
            "{way}: {sent} sent, {missing:?} lost, {twice} twice"
        );
    }
    let after = ids(cluster)?;
    ensure!(before == after, "other ids than before: {before:?}, {after:?}");
    let known = one.status()?["pods"].as_array().map(Vec::len);
    ensure!(known == Some(2), "node1 knows {known:?} pods");
    let late = one.pod()?;
    ensure!(
        !late.addresses.iter().any(|a| [&from, &local].iter().any(|p| p.addresses.contains(a)))
    );
    probe::ping(&late.namespace, remote.addresses[0])
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

struct Counts {
    sent: usize,
    arrived: usize,
    twice: usize,
    missing: BTreeSet<u32>,
}

/// Sends numbered datagrams at an even pace, of both families in turn, until it is over.
fn flow(from: &Pod, to: &Pod, is_over: &AtomicBool) -> Result<Counts> {
    let mut receivers = Vec::new();
    let mut senders = Vec::new();
    for address in &to.addresses {
        let at = SocketAddr::new(*address, PORT);
        let receiver = to.namespace.enter(|| probe::udp_socket(Some(at), at.ip()))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
        receivers.push(receiver);
        let sender = from.namespace.enter(|| probe::udp_socket(None, at.ip()))?;
        sender.connect(at)?;
        senders.push(sender);
    }
    let is_sent = AtomicBool::new(false);
    let mut sent = BTreeSet::new();
    let mut failures = 0;
    let arrived = thread::scope(|scope| {
        let receivers: Vec<_> =
            receivers.iter().map(|socket| scope.spawn(|| receive(socket, &is_sent))).collect();
        wait::pace_while(INTERVAL, |number| {
            let sender = &senders[number as usize % senders.len()];
            failures += u32::from(sender.send(&number.to_be_bytes()).is_err());
            sent.insert(number);
            !is_over.load(Ordering::Relaxed)
        });
        is_sent.store(true, Ordering::Relaxed);
        receivers.into_iter().map(|thread| thread.join().expect("a thread")).collect::<Vec<_>>()
    });
    ensure!(failures == 0, "{failures} packets could not be sent");
    let numbers: BTreeSet<u32> = arrived.iter().flatten().copied().collect();
    let total: usize = arrived.iter().map(Vec::len).sum();
    Ok(Counts {
        sent: sent.len(),
        arrived: numbers.len(),
        twice: total - numbers.len(),
        missing: sent.difference(&numbers).copied().take(20).collect(),
    })
}

/// The numbers that arrive, until none comes any more.
fn receive(socket: &UdpSocket, is_sent: &AtomicBool) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut packet = [0; 4];
    loop {
        match socket.recv(&mut packet) {
            Ok(_) => numbers.push(u32::from_be_bytes(packet)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing for a while.
            Err(_) if is_sent.load(Ordering::Relaxed) => return numbers,
            Err(_) => {}
        }
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
