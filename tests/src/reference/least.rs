//! Two pods that the least program joins which can deliver a packet as a pod network must: it writes both MACs and
//! redirects, looks nothing up and checks nothing. What is slower than a bare veth pair here is the kernel's.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya_obj::generated::{
    bpf_attach_type::BPF_TCX_INGRESS, bpf_cmd, bpf_func_id::BPF_FUNC_redirect_peer,
};

use super::Pair;
use crate::bpf::{Instruction, bpf_fd, instruction, load, zeroed_attr};
use crate::namespace::Namespace;
use crate::run::Run;

/// Offsets in `__sk_buff` (linux/bpf.h).
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// One of the two.
struct Pod {
    namespace: Namespace,
    mac: [u8; 6],
    host_ifname: &'static str,
    host_ifindex: u32,
    host_mac: [u8; 6],
}

/// Makes them. The programs stay attached until what is returned beside them is dropped.
///
/// # Errors
/// When something cannot be made.
pub fn pods(run: &Run) -> Result<(Pair, Vec<OwnedFd>)> {
    let node = Namespace::new(&format!("{}-least", run.name()), run.is_kept())?;
    let pods = [pod(run, &node, "pod1", 1)?, pod(run, &node, "pod2", 2)?];
    let [one, two] = &pods;
    let mut links = Vec::new();
    for (from, to, host) in [(one, two, 2), (two, one, 1)] {
        let gateway = mac_text(from.host_mac);
        for address in addresses(host) {
            let entry = format!("neighbour add {address} lladdr {gateway} dev eth0 nud permanent");
            from.namespace.ip(&entry)?;
        }
        let program = load(&instructions(to)).context("load the least program")?;
        let link = node.enter(|| attach(&program, from.host_ifindex));
        links.push(link.with_context(|| format!("attach to {}", from.host_ifname))?);
    }
    let [client, server] = pods.map(|pod| pod.namespace);
    Ok((Pair { client, server, addresses: addresses(2), machines: vec![node] }, links))
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

/// What delivers to a pod of the same node.
fn instructions(to: &Pod) -> [Instruction; 12] {
    let [a, b, c] = words([to.mac, to.host_mac]);
    [
        instruction(0x61, 2, 1, DATA, 0),     // r2 = data
        instruction(0x61, 3, 1, DATA_END, 0), // r3 = data_end
        instruction(0xbf, 4, 2, 0, 0),        // r4 = r2
        instruction(0x07, 4, 0, 0, 12),       // r4 += 12
        instruction(0x2d, 4, 3, 3, 0),        // if r4 > r3, to the redirect
        instruction(0x62, 2, 0, 0, a),        // both MACs
        instruction(0x62, 2, 0, 4, b),
        instruction(0x62, 2, 0, 8, c),
        instruction(0xb7, 1, 0, 0, to.host_ifindex.cast_signed()), // r1 = interface
        instruction(0xb7, 2, 0, 0, 0),                             // r2 = no flags
        instruction(0x85, 0, 0, 0, BPF_FUNC_redirect_peer as i32),
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
