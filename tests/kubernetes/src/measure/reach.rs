//! Since when packets of all pods arrive at a pod of a node that is new to the cluster.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::probe;
use harness::wait::pace_while;
use serde_json::json;

use super::Size;
use crate::cluster::Cluster;
use crate::pod::{self, Pod};
use crate::strangers::Stranger;

const NAMESPACE: &str = "podwire-reach";
const PODS_TIME_MAX: Duration = Duration::from_secs(120);
/// Of IPv4 and IPv6.
const PORTS: [u16; 2] = [9101, 9102];
/// Between two packets of a pod: little beside what is measured, and a tenth of a processor for all of them.
const INTERVAL: Duration = Duration::from_millis(2);

/// Sockets in pods of every node, and where the pods of other nodes would be.
pub(super) struct Reach {
    /// IPv4 first.
    senders: Vec<[UdpSocket; 2]>,
    receivers: [UdpSocket; 2],
}

/// A packet: which new node it is for, and which pod sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    event: u32,
    pod: u32,
}

impl Mark {
    fn bytes(self) -> [u8; 8] {
        (u64::from(self.event) << 32 | u64::from(self.pod)).to_be_bytes()
    }

    fn read(bytes: [u8; 8]) -> Self {
        let both = u64::from_be_bytes(bytes);
        Self { event: (both >> 32) as u32, pod: both as u32 }
    }
}

impl Reach {
    /// Starts the pods.
    pub(super) fn new(cluster: &Cluster, size: Size) -> Result<Self> {
        let kubectl = &cluster.control.kubectl;
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
        for node in &cluster.nodes {
            for number in 0..size.senders {
                let name = format!("{}-{number}", node.name);
                objects.push(pod::object(&name, NAMESPACE, &node.name)?);
            }
        }
        kubectl.apply(&objects)?;
        let pods = kubectl.wait_for_pods(NAMESPACE, PODS_TIME_MAX)?;
        let mut senders = Vec::new();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let pod = Pod::read(pod)?;
            senders.push(pod.namespace.enter(|| both(|any, _| probe::udp_socket(None, any)))?);
        }
        let wanted = cluster.nodes.len() * size.senders;
        ensure!(senders.len() == wanted, "{} of {wanted} pods", senders.len());
        let receivers = cluster.control.namespace.enter(|| {
            both(|any, port| {
                let socket = probe::udp_socket(Some(SocketAddr::new(any, port)), any)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
        })?;
        Ok(Self { senders, receivers })
    }

    /// Removes the pods: what is measured next wants all addresses of a node.
    pub(super) fn end(cluster: &Cluster) -> Result<()> {
        cluster
            .control
            .kubectl
            .run(&format!("delete namespace {NAMESPACE} --timeout=50s"))
            .map(drop)
    }

    pub(super) fn pods(&self) -> usize {
        self.senders.len()
    }

    /// When a packet of the last pod has arrived, of both families. Each sends until one does.
    pub(super) fn arrival(
        &self,
        stranger: Stranger,
        event: u32,
        timeout: Duration,
    ) -> Result<Instant> {
        let began = Instant::now();
        let all = 0..self.senders.len() as u32;
        let mut missing: BTreeSet<(u32, usize)> =
            all.flat_map(|pod| [(pod, 0), (pod, 1)]).collect();
        let mut result = Ok(());
        pace_while(INTERVAL, |_| {
            result = self.step(stranger, event, &mut missing);
            result.is_ok() && !missing.is_empty() && began.elapsed() < timeout
        });
        result?;
        ensure!(missing.is_empty(), "no packet of (pod, family) {missing:?} came in {timeout:?}");
        Ok(Instant::now())
    }

    /// Takes out those whose packets are there, and sends for the others.
    fn step(
        &self,
        stranger: Stranger,
        event: u32,
        missing: &mut BTreeSet<(u32, usize)>,
    ) -> Result<()> {
        for (family, receiver) in self.receivers.iter().enumerate() {
            let mut packet = [0; 8];
            loop {
                match receiver.recv(&mut packet) {
                    Ok(_) => {
                        let mark = Mark::read(packet);
                        // Those of an earlier one may be late.
                        if mark.event == event {
                            missing.remove(&(mark.pod, family));
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for (pod, family) in missing.iter() {
            let to = SocketAddr::new(stranger.pods()[*family], PORTS[*family]);
            self.senders[*pod as usize][*family].send_to(&Mark { event, pod: *pod }.bytes(), to)?;
        }
        Ok(())
    }
}

/// One for IPv4, one for IPv6.
fn both(socket: impl Fn(IpAddr, u16) -> Result<UdpSocket>) -> Result<[UdpSocket; 2]> {
    let [ipv4, ipv6] = PORTS;
    Ok([socket(Ipv4Addr::UNSPECIFIED.into(), ipv4)?, socket(Ipv6Addr::UNSPECIFIED.into(), ipv6)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_what_it_was_sent_for() {
        let mark = Mark { event: 999, pod: 7 };
        assert_eq!(Mark::read(mark.bytes()), mark);
    }
}
