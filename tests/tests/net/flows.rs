//! What a processor remembers of a pod ends with the pod.

use std::net::{IpAddr, SocketAddr};
use std::thread::available_parallelism;

use anyhow::{Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tests::cluster::{Cluster, Mode};
use tests::pod::Pod;
use tests::probe;

/// The discard service.
const PORT: u16 = 9;

#[test]
fn a_pod_that_is_gone_is_forgotten_by_every_processor() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let (one, other) = (node.pod()?, node.pod()?);
        for &to in &other.addresses {
            send_from_every_processor(&one, to)?;
        }
        other.delete()?;
        for &to in &other.addresses {
            let (unknown, delivered) = (node.counter("unknown_pod")?, node.counter("pod_to_pod")?);
            let sent = send_from_every_processor(&one, to)?;
            ensure!(node.counter("pod_to_pod")? == delivered, "{to} is still delivered to");
            ensure!(node.counter("unknown_pod")? == unknown + sent, "{to} is not counted");
        }
        Ok(())
    });
}

/// Sends a datagram from each; how many that are.
fn send_from_every_processor(pod: &Pod, to: IpAddr) -> Result<u64> {
    pod.namespace.enter(|| {
        let socket = probe::udp_socket(None, to)?;
        let processors = available_parallelism()?.get();
        for processor in 0..processors {
            let mut set = CpuSet::new();
            set.set(processor)?;
            sched_setaffinity(Pid::from_raw(0), &set)?;
            socket.send_to(b"x", SocketAddr::new(to, PORT))?;
        }
        Ok(processors as u64)
    })
}
