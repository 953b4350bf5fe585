//! The pinned programs, links and maps. The plugin loads nothing.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::maps::{HashMap, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use dataplane_core::abi::names::{MAP_PODS, MAPS, PROGRAM_FROM_POD, PROGRAM_TO_POD, PROGRAMS};
use dataplane_core::abi::{Addr, PodEntry};
use nix::net::if_::if_indextoname;

use super::syscall;
use crate::error::{Context as _, KERNEL, LIMITED, TRY_AGAIN, failure};
use crate::names::{Hook, Pins, is_pod_interface};
use crate::protocol::Failure;

const fn program_of(hook: Hook) -> (&'static str, TcAttachType) {
    match hook {
        Hook::Ingress => (PROGRAM_FROM_POD, TcAttachType::Ingress),
        Hook::Egress => (PROGRAM_TO_POD, TcAttachType::Egress),
    }
}

/// The pinned program of a hook.
pub(crate) struct Program {
    hook: Hook,
    file: OwnedFd,
    /// The kernel's number of it.
    pub(crate) id: u32,
}

/// Opens the program of a hook.
pub(crate) fn open_program(pins: &Pins, hook: Hook) -> Result<Program, Failure> {
    let path = pins.program(program_of(hook).0);
    let what = || format!("open {}", path.display());
    let file = match syscall::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(&path)),
        result => result.context(KERNEL, what)?,
    };
    let id = syscall::program_id(file.as_fd()).context(KERNEL, what)?;
    Ok(Program { hook, file, id })
}

/// Attaches a program to an interface and pins the link.
pub(crate) fn attach(
    pins: &Pins,
    program: &Program,
    ifname: &str,
    ifindex: u32,
) -> Result<(), Failure> {
    let Program { hook, file, .. } = program;
    let what = || format!("attach {} to {ifname}", program_of(*hook).0);
    let link = syscall::attach(file.as_fd(), ifindex, *hook).context(KERNEL, what)?;
    let pin = pins.link(ifname, *hook);
    let pinned = match syscall::pin(link.as_fd(), &pin) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // It belongs to an interface that is gone: the new one was made just now.
            remove(&pin)?;
            syscall::pin(link.as_fd(), &pin)
        }
        result => result,
    };
    pinned.context(KERNEL, || format!("pin {}", pin.display()))
}

/// Looks whether all programs and maps are pinned.
pub(crate) fn check_pins(pins: &Pins) -> Result<(), Failure> {
    let programs = PROGRAMS.iter().map(|name| pins.program(name));
    let maps = MAPS.iter().map(|name| pins.map(name));
    match programs.chain(maps).find(|pin| !pin.exists()) {
        Some(pin) => Err(failure(
            LIMITED,
            format!("{} is missing", pin.display()),
            "without it no pod can be attached, and an agent that starts cannot take over those that \
             run: see that podwire-agent runs and that bpffs is mounted where the runtime sees it",
        )),
        None => Ok(()),
    }
}

/// The id of the pinned program of a hook, and the ids of those that run there.
pub(crate) fn programs(pins: &Pins, ifname: &str, hook: Hook) -> Result<(u32, Vec<u32>), Failure> {
    let (name, kind) = program_of(hook);
    let path = pins.program(name);
    refuse_missing(&path)?;
    let what = || format!("ask what is attached to {ifname}");
    let wanted = ProgramInfo::from_pin(&path).context(KERNEL, what)?.id();
    let (_, attached) = SchedClassifier::query_tcx(ifname, kind).context(KERNEL, what)?;
    Ok((wanted, attached.iter().map(ProgramInfo::id).collect()))
}

/// The entry of an address in `pw_pods`.
pub(crate) fn pod_entry(pins: &Pins, ip: IpAddr) -> Result<Option<PodEntry>, Failure> {
    let path = pins.map(MAP_PODS);
    refuse_missing(&path)?;
    let what = || format!("read {}", path.display());
    let data = MapData::from_pin(&path).context(KERNEL, what)?;
    let info = data.info().context(KERNEL, what)?;
    if (info.key_size() as usize, info.value_size() as usize)
        != (size_of::<Addr>(), size_of::<PodEntry>())
    {
        return Err(failure(
            KERNEL,
            what(),
            "its layout is another than this plugin's: install plugin and agent of one release",
        ));
    }
    let map: HashMap<_, Addr, PodEntry> =
        HashMap::try_from(Map::HashMap(data)).context(KERNEL, what)?;
    match map.get(&ip.into(), 0) {
        Ok(entry) => Ok(Some(entry)),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).context(KERNEL, what),
    }
}

/// The name that somebody has given to the host side of a veth: its links know which interface it is.
pub(crate) fn renamed(pins: &Pins, ifname: &str) -> Option<String> {
    let index = [Hook::Ingress, Hook::Egress]
        .into_iter()
        .find_map(|hook| linked_interface(&pins.link(ifname, hook)))?;
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    // Another pod's, if ours has been moved to another namespace.
    Some(name).filter(|name| !is_pod_interface(name))
}

/// The index of the interface on which a pinned link is. The library does not tell, but the kernel does,
/// beside the descriptor that the library has.
fn linked_interface(pin: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    let id = link.info().ok()?.id();
    let files = std::fs::read_dir("/proc/self/fdinfo").ok()?.flatten();
    files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).find_map(|text| {
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u32>().ok()
        };
        number("ifindex:").filter(|_| number("link_id:") == Some(id))
    })
}

/// Removes the pins of both links, and with them the links of an interface that is gone.
pub(crate) fn remove_link_pins(pins: &Pins, ifname: &str) -> Result<(), Failure> {
    remove(&pins.link(ifname, Hook::Ingress))?;
    remove(&pins.link(ifname, Hook::Egress))
}

fn remove(pin: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(KERNEL, || format!("remove {}", pin.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn refuse_missing(pin: &Path) -> Result<(), Failure> {
    if pin.exists() { Ok(()) } else { Err(missing(pin)) }
}

fn missing(pin: &Path) -> Failure {
    failure(
        TRY_AGAIN,
        format!("{} is missing", pin.display()),
        "the agent pins its programs when it starts: start it again, and see that bpffs is mounted \
         where the runtime sees it",
    )
}
