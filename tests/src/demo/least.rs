//! Two pods that the least program joins which can deliver a packet as a pod network must: it writes both MACs and
//! redirects, looks nothing up and checks nothing. What is slower than a bare veth pair here is the kernel's.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use aya_obj::generated::{
    bpf_attach_type::BPF_TCX_INGRESS, bpf_attr, bpf_cmd, bpf_func_id::BPF_FUNC_redirect_peer,
    bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
};
use serde_json::Value;

use super::reference::Pair;
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
pub(super) fn pods(run: &Run) -> Result<(Pair, Vec<OwnedFd>)> {
    let node = Namespace::new(&format!("{}-least", run.name()), run.is_kept())?;
    let pods = [pod(run, &node, "pod1", 1)?, pod(run, &node, "pod2", 2)?];
    let [one, two] = &pods;
    let mut links = Vec::new();
    for (from, to, address) in [(one, two, "10.97.0.2"), (two, one, "10.97.0.1")] {
        let gateway = mac_text(from.host_mac);
        let entry = format!("neighbour add {address} lladdr {gateway} dev eth0 nud permanent");
        from.namespace.ip(&entry)?;
        let program = load(&instructions(to)).context("load the least program")?;
        let link = node.enter(|| attach(&program, from.host_ifindex));
        links.push(link.with_context(|| format!("attach to {}", from.host_ifname))?);
    }
    let [client, server] = pods.map(|pod| pod.namespace);
    let address = IpAddr::from([10, 97, 0, 2]);
    Ok((Pair { client, server, address, machines: vec![node] }, links))
}

fn pod(run: &Run, node: &Namespace, host_ifname: &'static str, number: u8) -> Result<Pod> {
    let namespace = Namespace::new(&format!("{}-least{number}", run.name()), run.is_kept())?;
    node.ip(&format!(
        "link add {host_ifname} type veth peer name eth0 netns {}\nlink set {host_ifname} up",
        namespace.name()
    ))?;
    namespace.ip(&format!("link set eth0 up\naddress add 10.97.0.{number}/24 dev eth0"))?;
    let (host_ifindex, host_mac) = link(node, host_ifname)?;
    let (_, mac) = link(&namespace, "eth0")?;
    Ok(Pod { namespace, mac, host_ifname, host_ifindex, host_mac })
}

/// Index and MAC.
fn link(namespace: &Namespace, name: &str) -> Result<(u32, [u8; 6])> {
    let links: Value = serde_json::from_str(&namespace.run(&format!("ip -j link show {name}"))?)?;
    let index = links[0]["ifindex"].as_u64().context("no index")?;
    let text = links[0]["address"].as_str().context("no MAC")?;
    let mac: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    Ok((u32::try_from(index)?, mac.try_into().ok().context("a MAC of six bytes")?))
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What delivers to a pod of the same node.
fn instructions(to: &Pod) -> [[u8; 8]; 12] {
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

/// Operation, registers, offset, immediate value (RFC 9669, section 3).
fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let registers = to | (from << 4);
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, registers, a, b, c, d, e, f]
}

fn load(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    // SAFETY: a union of structs of integers, all zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_SCHED_CLS as u32;
    load.expected_attach_type = BPF_TCX_INGRESS as u32;
    load.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    load.insns = instructions.as_ptr() as u64;
    load.license = c"GPL".as_ptr() as u64;
    // SAFETY: BPF_PROG_LOAD reads `insn_cnt` instructions and a string with a NUL, which both outlive the
    // call; all other fields are zero.
    unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// Attaches to the TCX ingress of an interface of the calling thread's namespace; the link.
fn attach(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = BPF_TCX_INGRESS as u32;
    // SAFETY: BPF_LINK_CREATE for TCX reads the three integers set above and no pointer; all other fields
    // are zero.
    unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of structs of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// A command that returns a new descriptor.
///
/// # Safety
/// The fields of `attr` that `command` uses must be valid for it.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let size = size_of::<bpf_attr>();
    // SAFETY: `attr` is a whole `bpf_attr` of the size given; its content is the caller's promise.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attr, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
