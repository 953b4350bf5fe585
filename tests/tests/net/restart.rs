//! The agent dies and comes back; pods do not notice.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::pod::Pod;
use tests::probe;
use tests::wait;

const PACKETS: u32 = 4_000;
const INTERVAL: Duration = Duration::from_millis(1);
const PORT: u16 = 9100;

#[test]
fn a_killed_agent_loses_no_packet_in_direct_mode() {
    Cluster::builder(Mode::Direct).test(nothing_is_lost);
}

#[test]
fn a_killed_agent_loses_no_packet_in_vxlan_mode() {
    Cluster::builder(Mode::Vxlan).test(nothing_is_lost);
}

/// Kills and starts both agents, as often as there is time, while packets flow.
fn nothing_is_lost(cluster: &Cluster) -> Result<()> {
    let (from, local) = (cluster.node(1).pod()?, cluster.node(1).pod()?);
    let remote = cluster.node(2).pod()?;
    let flows = [(&from, &local, 0), (&from, &remote, 1), (&remote, &from, 0)];
    let mut restarts = 0;
    let lost = thread::scope(|scope| -> Result<Vec<u32>> {
        let flows: Vec<_> = flows
            .map(|(from, to, family)| scope.spawn(move || flow(from, to, family)))
            .into_iter()
            .collect();
        while !flows.iter().all(thread::ScopedJoinHandle::is_finished) {
            for node in cluster.nodes() {
                node.kill_agent();
                node.spawn_agent()?;
                node.wait_for_agent()?;
                restarts += 1;
            }
        }
        flows.into_iter().map(|flow| flow.join().expect("a thread")).collect()
    })?;
    ensure!(restarts >= 2, "the agents were restarted {restarts} times only");
    ensure!(lost.iter().all(|lost| *lost == 0), "lost {lost:?} with {restarts} restarts");
    // What was there before is still known.
    let pods = cluster.node(1).status()?["pods"].as_array().map(Vec::len);
    ensure!(pods == Some(2), "node1 knows {pods:?} pods");
    let late = cluster.node(1).pod()?;
    ensure!(!from.addresses.iter().any(|address| late.addresses.contains(address)));
    probe::ping(&late.namespace, remote.addresses[0])
}

/// Sends numbered datagrams at an even pace; returns how many did not arrive.
fn flow(from: &Pod, to: &Pod, family: usize) -> Result<u32> {
    let at = SocketAddr::new(to.addresses[family], PORT);
    let receiver = to.namespace.enter(|| probe::udp_socket(Some(at), at.ip()))?;
    let sender = from.namespace.enter(|| probe::udp_socket(None, at.ip()))?;
    sender.connect(at)?;
    let mut failed = 0;
    let arrived = thread::scope(|scope| {
        let arrived = scope.spawn(|| {
            let mut arrived = 0;
            let mut packet = [0; 4];
            while arrived < PACKETS {
                match receiver.recv(&mut packet) {
                    Ok(_) => arrived += 1,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            arrived
        });
        wait::pace(PACKETS, INTERVAL, |number| {
            failed += u32::from(sender.send(&number.to_be_bytes()).is_err());
        });
        arrived.join().expect("a thread")
    });
    ensure!(failed == 0, "{failed} sends failed");
    Ok(PACKETS - arrived)
}
