//! The calls of bpf(2) that aya keeps to itself: opening a pin of any kind, what a link is attached to, which
//! maps a program uses, what is at a hook, and many entries of a map at once.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_prog_info,
};

use crate::kernel::LinkHook;

/// What a pin refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    Program,
    Link,
    Other,
}

/// A TCX link, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcxLink {
    pub(super) id: u32,
    pub(super) program: u32,
    /// 0: detached, or the interface is gone.
    pub(super) ifindex: u32,
    pub(super) hook: LinkHook,
}

/// Opens a pin and says what it is.
pub(super) fn open_pin(path: &Path) -> io::Result<(OwnedFd, Kind)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: BPF_OBJ_GET reads `pathname`, a NUL-terminated string that lives until the end of
    // this function; all other fields are zero.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let kind = match fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?.to_str() {
        Some("anon_inode:bpf-map") => Kind::Map,
        Some("anon_inode:bpf-prog") => Kind::Program,
        Some("anon_inode:bpf-link" | "anon_inode:bpf_link") => Kind::Link,
        Some(_) | None => Kind::Other,
    };
    Ok((fd, kind))
}

/// What a link's descriptor refers to; none when it is no TCX link.
pub(super) fn tcx_link(fd: BorrowedFd<'_>) -> io::Result<Option<TcxLink>> {
    // SAFETY: `bpf_link_info` is made of integers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    attr.info.info = (&raw mut info) as u64;
    // SAFETY: BPF_OBJ_GET_INFO_BY_FD writes at most `info_len` bytes to `info`, which is that
    // large, alive and not borrowed otherwise; all other fields are zero.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        return Ok(None);
    }
    // SAFETY: the type says that `tcx` is the field of the union that the kernel wrote, and any
    // bits are a value of its integers.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    let hook = if tcx.attach_type == attach_type(LinkHook::Ingress) {
        LinkHook::Ingress
    } else {
        LinkHook::Egress
    };
    Ok(Some(TcxLink { id: info.id, program: info.prog_id, ifindex: tcx.ifindex, hook }))
}

/// Kernel ids of the maps that a program uses. aya asks for the program by its id on the way, which only
/// CAP_SYS_ADMIN may.
pub(super) fn program_maps(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    loop {
        // SAFETY: `bpf_prog_info` is made of integers, for which zero is a value.
        let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
        info.nr_map_ids = ids.len() as u32;
        info.map_ids = ids.as_mut_ptr() as u64;
        let mut attr = zeroed_attr();
        attr.info.bpf_fd = fd.as_raw_fd() as u32;
        attr.info.info_len = size_of::<bpf_prog_info>() as u32;
        attr.info.info = (&raw mut info) as u64;
        // SAFETY: BPF_OBJ_GET_INFO_BY_FD writes at most `info_len` bytes to `info` and `nr_map_ids` numbers to
        // `map_ids`; both are that large and alive.
        unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
        let count = info.nr_map_ids as usize;
        if count <= ids.len() {
            ids.truncate(count);
            return Ok(ids);
        }
        ids.resize(count, 0);
    }
}

/// The programs at a hook are fewer than this: the kernel allows 64 (`BPF_MPROG_MAX`).
const PROGRAMS_MAX: usize = 64;

/// Ids of the programs at a TCX hook, in their order.
pub(super) fn tcx_programs(ifindex: u32, hook: LinkHook) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attr = zeroed_attr();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = attach_type(hook);
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = PROGRAMS_MAX as u32;
    // SAFETY: BPF_PROG_QUERY writes at most `count` numbers to `prog_ids`, which has room for as many, is
    // alive and not borrowed otherwise; all other fields are zero.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }?;
    // SAFETY: the kernel wrote how many there are, and any bits are a value of the integer.
    let count = unsafe { attr.query.__bindgen_anon_2.count };
    Ok(ids.into_iter().take(count as usize).collect())
}

/// Asks for a TCX link at an interface that cannot be: the error tells whether the kernel has such links.
pub(super) fn attach_nowhere(program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.attach_type = attach_type(LinkHook::Ingress);
    // SAFETY: BPF_LINK_CREATE reads the descriptor, which is open, and numbers.
    let fd = unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Entries of a map behind this key, or from the first on: fewer than `count` when there are no more. The types
/// are those of the map, which the kernel's numbers were compared with.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    behind: Option<&K>,
    count: usize,
) -> io::Result<Vec<(K, V)>> {
    let mut keys: Vec<K> = Vec::with_capacity(count);
    let mut values: Vec<V> = Vec::with_capacity(count);
    let mut last = MaybeUninit::<K>::uninit();
    let mut attr = zeroed_attr();
    attr.batch.in_batch = behind.map_or(0, |key| (&raw const *key) as u64);
    attr.batch.out_batch = last.as_mut_ptr() as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = count as u32;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    // SAFETY: BPF_MAP_LOOKUP_BATCH reads one key at `in_batch`, writes one to `out_batch` and at most `count` to
    // `keys` and `values`. All have room for these, are alive and not borrowed otherwise.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Not found is what comes behind the last key.
        Ok(_) | Err(_) => {}
    }
    // SAFETY: the kernel wrote how many there are, and any bits are a value of the integer.
    let found = (unsafe { attr.batch.count } as usize).min(count);
    // SAFETY: so many were written, which are not more than there is room for.
    unsafe {
        keys.set_len(found);
        values.set_len(found);
    }
    Ok(keys.into_iter().zip(values).collect())
}

/// How many entries a call changed, all or those before one that failed.
pub(super) type Batch = Result<usize, (usize, io::Error)>;

/// Puts entries into a map.
pub(super) fn update_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> Batch {
    let mut attr = zeroed_attr();
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    attr.batch.count = keys.len().min(values.len()) as u32;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    // SAFETY: BPF_MAP_UPDATE_BATCH reads `count` keys and values of the map's sizes, which are there.
    unsafe { change_batch(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) }
}

/// Removes entries from a map.
pub(super) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Batch {
    let mut attr = zeroed_attr();
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.count = keys.len() as u32;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    // SAFETY: BPF_MAP_DELETE_BATCH reads `count` keys of the map's size, which are there.
    unsafe { change_batch(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) }
}

/// # Safety
/// The fields of `attr.batch` must be valid for the command.
unsafe fn change_batch(command: bpf_cmd, attr: &mut bpf_attr) -> Batch {
    // SAFETY: the caller's promise.
    let result = unsafe { bpf(command, attr) };
    // SAFETY: the kernel wrote how many it changed, or left what we wrote; any bits are a value of the integer.
    let done = unsafe { attr.batch.count } as usize;
    result.map(|_| done).map_err(|error| (done, error))
}

fn attach_type(hook: LinkHook) -> u32 {
    match hook {
        LinkHook::Ingress => bpf_attach_type::BPF_TCX_INGRESS as u32,
        LinkHook::Egress => bpf_attach_type::BPF_TCX_EGRESS as u32,
    }
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of structs of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// # Safety
/// The fields of `attr` that `command` uses must be valid for it.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: `attr` is a whole `bpf_attr` of the size given; its content is the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
