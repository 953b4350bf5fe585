//! Small programs for the kernel, written by hand, and runs of any program on packets that no device carries.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use anyhow::Result;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use aya_obj::generated::{
    bpf_attr, bpf_cmd, bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY,
    bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
};
use serde_json::Value;

use crate::namespace::Namespace;

/// One instruction as the kernel takes it.
pub type Instruction = [u8; 8];

/// What a program answers for a packet that it has redirected, or leaves to the next one (linux/pkt_cls.h,
/// linux/bpf.h).
pub const REDIRECT: i32 = 7;
/// See [`REDIRECT`].
pub const NEXT: i32 = -1;

/// Size of `__sk_buff` (linux/bpf.h), and where its `ifindex` is.
const CONTEXT_LEN: usize = 192;
const IFINDEX_AT: usize = 40;
/// Where its `ingress_ifindex` is.
pub const INGRESS_IFINDEX_AT: usize = 36;

/// Operation, registers, offset, immediate value (RFC 9669, section 3).
pub const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = to | (from << 4);
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, registers, a, b, c, d, e, f]
}

/// Loads a program for TC.
///
/// # Errors
/// When the kernel refuses it.
pub fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    // SAFETY: a union of structs of integers, all zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_SCHED_CLS as u32;
    load.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    load.insns = instructions.as_ptr() as u64;
    load.license = c"GPL".as_ptr() as u64;
    // SAFETY: BPF_PROG_LOAD reads `insn_cnt` instructions and a string with a NUL, which both outlive the
    // call; all other fields are zero.
    unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// An array of one program, for tail calls.
///
/// # Errors
/// When the kernel refuses it.
pub fn program_array(program: impl AsFd) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    // SAFETY: a union of structs of integers, all zero.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = BPF_MAP_TYPE_PROG_ARRAY as u32;
    (create.key_size, create.value_size, create.max_entries) = (4, 4, 1);
    // SAFETY: BPF_MAP_CREATE reads the integers set above and no pointer; all other fields are zero.
    let array = unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)? };
    let (key, value) = (0_u32, program.as_fd().as_raw_fd());
    let mut attr = zeroed_attr();
    // SAFETY: as above.
    let update = unsafe { &mut attr.__bindgen_anon_2 };
    update.map_fd = array.as_raw_fd() as u32;
    update.key = &raw const key as u64;
    update.__bindgen_anon_1.value = &raw const value as u64;
    // SAFETY: BPF_MAP_UPDATE_ELEM reads a key and a value of four bytes each, which outlive the call.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr)? };
    Ok(array)
}

/// What a program did with a packet, in runs one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its answer in the last one.
    pub action: i32,
    /// Nanoseconds of one, as the kernel has it: the mean.
    pub nanoseconds: u32,
}

/// Runs a program `repeat` times on one packet, which each run finds as the one before left it. The packet
/// belongs to an interface of the calling thread's namespace.
///
/// # Errors
/// When the kernel refuses the packet, or there is no such interface.
pub fn test_run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    packet: &[u8],
    repeat: u32,
) -> io::Result<Ran> {
    test_run_with(program, &context(ifindex), packet, repeat, &mut [])
}

/// The same with a context of one's own; `out` gets the beginning of what is left of the packet.
///
/// # Errors
/// As above, and when the kernel does not let that context be set.
pub fn test_run_with(
    program: BorrowedFd<'_>,
    context: &[u8; CONTEXT_LEN],
    packet: &[u8],
    repeat: u32,
    out: &mut [u8],
) -> io::Result<Ran> {
    let mut attr = zeroed_attr();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.data_size_in = u32::try_from(packet.len()).map_err(io::Error::other)?;
    attr.test.data_in = packet.as_ptr() as u64;
    attr.test.ctx_size_in = CONTEXT_LEN as u32;
    attr.test.ctx_in = context.as_ptr() as u64;
    attr.test.repeat = repeat;
    if !out.is_empty() {
        attr.test.data_size_out = u32::try_from(out.len()).map_err(io::Error::other)?;
        attr.test.data_out = out.as_mut_ptr() as u64;
    }
    // SAFETY: BPF_PROG_TEST_RUN reads packet and context and writes to `out`, whose sizes are given and which outlive
    // the call; without `out` its place is null, as that of the context is, and it writes to the structure alone.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)? };
    // SAFETY: integers, which the kernel has written.
    let test = unsafe { attr.test };
    Ok(Ran { action: test.retval.cast_signed(), nanoseconds: test.duration })
}

/// The `__sk_buff` of a packet that arrived on, or leaves by, an interface.
pub fn context(ifindex: u32) -> [u8; CONTEXT_LEN] {
    let mut context = [0; CONTEXT_LEN];
    context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// For a command with fields of its own.
pub(crate) fn zeroed_attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of structs of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// A command that returns a new descriptor.
///
/// # Safety
/// The fields of `attr` that `command` uses must be valid for it.
pub(crate) unsafe fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A command; what it returns.
///
/// # Safety
/// The fields of `attr` that `command` uses must be valid for it.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    let size = size_of::<bpf_attr>();
    // SAFETY: `attr` is a whole `bpf_attr` of the size given; its content is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attr, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// What is on the TCX hooks of the interfaces of a namespace, each as `eth0 ingress pw_from_net`. `bpftool net` shows it
/// from release 7.3 on.
///
/// # Errors
/// When the kernel does not say.
pub fn on_tcx(namespace: &Namespace) -> Result<Vec<String>> {
    let links: Value = serde_json::from_str(&namespace.run("ip -json link show")?)?;
    let names: Vec<&str> =
        links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str()).collect();
    let hooks = [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)];
    namespace.enter(|| {
        let mut found = Vec::new();
        for name in names {
            for (hook, attached) in hooks {
                let (_, programs) = SchedClassifier::query_tcx(name, attached)?;
                let line = |program: &ProgramInfo| {
                    format!("{name} {hook} {}", program.name_as_str().unwrap_or_default())
                };
                found.extend(programs.iter().map(line));
            }
        }
        Ok(found)
    })
}
