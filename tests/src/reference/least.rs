//! Two pods that the least programs join which can deliver a packet as a pod network must: they write both MACs and
//! redirect, look nothing up and check nothing. What is slower than a bare veth pair here, or than from host to host, is
//! the kernel's.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya_obj::generated::{
    bpf_attach_type::BPF_TCX_INGRESS,
    bpf_cmd,
    bpf_func_id::{self, BPF_FUNC_redirect, BPF_FUNC_redirect_peer},
};

use super::{Pair, plug};
use crate::bpf::{Instruction, bpf_fd, instruction, load, zeroed_attr};
use crate::fabric::Fabric;
use crate::namespace::Namespace;
use crate::run::Run;

/// Offsets in `__sk_buff` (linux/bpf.h).
const DATA: i16 = 76;
const DATA_END: i16 = 80;
/// Last numbers of the addresses of two machines on the nodes' LAN.
const MACHINES: [u8; 2] = [31, 32];

/// One of the two.
struct Pod {
    namespace: Namespace,
    mac: [u8; 6],
    host_ifname: &'static str,
    host_ifindex: u32,
    host_mac: [u8; 6],
}

/// Where a packet goes.
struct Way {
    /// Destination and source.
    macs: [[u8; 6]; 2],
    ifindex: u32,
    /// The helper that sends it there.
    redirect: bpf_func_id,
}

impl Way {
    /// To a pod of the same node.
    fn to_pod(pod: &Pod) -> Self {
        let redirect = BPF_FUNC_redirect_peer;
        Self { macs: [pod.mac, pod.host_mac], ifindex: pod.host_ifindex, redirect }
    }
}

/// Makes them on one node. The programs stay attached until what is returned beside them is dropped.
///
/// # Errors
/// When something cannot be made.
pub fn pods(run: &Run) -> Result<(Pair, Vec<OwnedFd>)> {
    let node = Namespace::new(&format!("{}-least", run.name()), run.is_kept())?;
    let pods = [pod(run, &node, "pod1", 1)?, pod(run, &node, "pod2", 2)?];
    let [one, two] = &pods;
    let mut links = Vec::new();
    for (from, to, host) in [(one, two, 2), (two, one, 1)] {
        knows(from, host)?;
        links.push(sends(&node, (from.host_ifname, from.host_ifindex), &Way::to_pod(to))?);
    }
    let [client, server] = pods.map(|pod| pod.namespace);
    Ok((Pair { client, server, addresses: addresses(2), machines: vec![node] }, links))
}

/// The same on two nodes, whose uplinks have no other use.
///
/// # Errors
/// When something cannot be made.
pub fn pods_of_two_nodes(run: &Run, fabric: &Fabric) -> Result<(Pair, Vec<OwnedFd>)> {
    let [one, two] = MACHINES.map(|host| plug(run, fabric, &format!("least-node{host}"), host));
    let nodes = [one?, two?];
    let pods = [pod(run, &nodes[0], "pod3", 3)?, pod(run, &nodes[1], "pod4", 4)?];
    let uplinks = [nodes[0].link("eth0")?, nodes[1].link("eth0")?];
    let mut links = Vec::new();
    for (own, other, host) in [(0, 1, 4), (1, 0, 3)] {
        let (node, pod, (ifindex, mac)) = (&nodes[own], &pods[own], uplinks[own]);
        knows(pod, host)?;
        let out = Way { macs: [uplinks[other].1, mac], ifindex, redirect: BPF_FUNC_redirect };
        links.push(sends(node, (pod.host_ifname, pod.host_ifindex), &out)?);
        links.push(sends(node, ("eth0", ifindex), &Way::to_pod(pod))?);
    }
    let [client, server] = pods.map(|pod| pod.namespace);
    Ok((Pair { client, server, addresses: addresses(4), machines: nodes.into() }, links))
}

/// A pod knows the MAC for the addresses of another one, which is the node's.
fn knows(pod: &Pod, host: u8) -> Result<()> {
    let gateway = mac_text(pod.host_mac);
    for address in addresses(host) {
        let entry = format!("neighbour add {address} lladdr {gateway} dev eth0 nud permanent");
        pod.namespace.ip(&entry)?;
    }
    Ok(())
}

/// What arrives at an interface of a node goes one way; the link of its program.
fn sends(node: &Namespace, (name, ifindex): (&str, u32), way: &Way) -> Result<OwnedFd> {
    let program = load(&instructions(way)).context("load the least program")?;
    node.enter(|| attach(&program, ifindex)).with_context(|| format!("attach to {name}"))
}

fn addresses(host: u8) -> [IpAddr; 2] {
    [[10, 97, 0, host].into(), [0xfd00, 0x97, 0, 0, 0, 0, 0, host.into()].into()]
}

fn pod(run: &Run, node: &Namespace, host_ifname: &'static str, number: u8) -> Result<Pod> {
    let namespace = Namespace::new(&format!("{}-least{number}", run.name()), run.is_kept())?;
    node.ip(&format!(
        "link add {host_ifname} type veth peer name eth0 netns {}\nlink set {host_ifname} up",
        namespace.name()
    ))?;
    let [ipv4, ipv6] = addresses(number);
    namespace.ip(&format!(
        "link set eth0 up\naddress add {ipv4}/24 dev eth0\naddress add {ipv6}/64 dev eth0"
    ))?;
    let (host_ifindex, host_mac) = node.link(host_ifname)?;
    let (_, mac) = namespace.link("eth0")?;
    Ok(Pod { namespace, mac, host_ifname, host_ifindex, host_mac })
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What sends a packet on its way.
fn instructions(way: &Way) -> [Instruction; 12] {
    let [a, b, c] = words(way.macs);
    [
        instruction(0x61, 2, 1, DATA, 0),     // r2 = data
        instruction(0x61, 3, 1, DATA_END, 0), // r3 = data_end
        instruction(0xbf, 4, 2, 0, 0),        // r4 = r2
        instruction(0x07, 4, 0, 0, 12),       // r4 += 12
        instruction(0x2d, 4, 3, 3, 0),        // if r4 > r3, to the redirect
        instruction(0x62, 2, 0, 0, a),        // both MACs
        instruction(0x62, 2, 0, 4, b),
        instruction(0x62, 2, 0, 8, c),
        instruction(0xb7, 1, 0, 0, way.ifindex.cast_signed()), // r1 = interface
        instruction(0xb7, 2, 0, 0, 0),                         // r2 = no flags
        instruction(0x85, 0, 0, 0, way.redirect as i32),
        instruction(0x95, 0, 0, 0, 0), // exit with its answer
    ]
}

/// Two MACs as they lie in a frame.
fn words(macs: [[u8; 6]; 2]) -> [i32; 3] {
    let [[a, b, c, d, e, f], [g, h, i, j, k, l]] = macs;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(i32::from_ne_bytes)
}

/// Attaches to the TCX ingress of an interface of the calling thread's namespace; the link.
fn attach(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = BPF_TCX_INGRESS as u32;
    // SAFETY: BPF_LINK_CREATE for TCX reads the three integers set above and no pointer; all other fields
    // are zero.
    unsafe { bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}
