//! TCX links: one pin per interface and hook, so that they outlive the agent.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use cni_shim::names::Pins;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::error::{Context as _, refusal};
use super::syscall::{self, Kind, TcxLink};
use crate::kernel::{KernelError, Link, LinkHook};

/// End of the name of a pin that is about to be removed.
const REMOVING: &str = "-removing";
/// Ends of the names of pins.
const HOOKS: [(&str, LinkHook); 2] =
    [("-ingress", LinkHook::Ingress), ("-egress", LinkHook::Egress)];

/// A pin in the directory of links.
pub(super) struct Pin {
    pub(super) path: PathBuf,
    /// The interface, as far as the file's name tells it: dots are underscores there.
    interface: String,
    hook: LinkHook,
    pub(super) link: TcxLink,
}

/// The links of one bpffs directory.
pub(super) struct Links {
    pins: Pins,
    /// Kernel ids of the links at the last look: only those are removed.
    seen: BTreeMap<(String, LinkHook), u32>,
}

impl Links {
    pub(super) fn new(pins: Pins) -> Self {
        Self { pins, seen: BTreeMap::new() }
    }

    /// The program of each pinned link, by interface and hook; empty when the link is detached, on
    /// another interface than its name says, or runs a program that is not pinned (any more).
    pub(super) fn observe(
        &mut self,
        interfaces: &BTreeMap<String, Link>,
        programs: &BTreeMap<u32, &'static str>,
    ) -> Result<BTreeMap<(String, LinkHook), String>, KernelError> {
        let names: BTreeMap<u32, &String> =
            interfaces.values().map(|link| (link.ifindex, &link.name)).collect();
        self.seen.clear();
        let mut links = BTreeMap::new();
        for pin in list(&self.pins)? {
            let owner = names
                .get(&pin.link.ifindex)
                .filter(|name| self.pins.link(name, pin.hook.into()) == pin.path);
            let program = programs.get(&pin.link.program);
            let (interface, program) = match owner {
                Some(name) if pin.link.hook == pin.hook => (*name, program.copied().unwrap_or("")),
                Some(name) => (*name, ""),
                None => (&pin.interface, ""),
            };
            let key = (interface.clone(), pin.hook);
            self.seen.insert(key.clone(), pin.link.id);
            links.insert(key, program.to_owned());
        }
        Ok(links)
    }

    /// Runs the program at the hook: through the link that is pinned there if it is alive, else
    /// through a new one.
    pub(super) fn attach(
        &mut self,
        interface: &str,
        hook: LinkHook,
        program: &mut SchedClassifier,
    ) -> Result<(), KernelError> {
        let path = self.pins.link(interface, hook.into());
        let what = || format!("attach to {interface} ({hook:?})");
        let ifindex = nix::net::if_::if_nametoindex(interface).context(what)?;
        if let Some(link) = look(&path)? {
            if link.ifindex == ifindex && link.hook == hook && update(&path, program)? {
                return Ok(());
            }
            remove(&path, link.id)?;
        }
        let direction = match hook {
            LinkHook::Ingress => TcAttachType::Ingress,
            LinkHook::Egress => TcAttachType::Egress,
        };
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, direction, first).context(what)?;
        let link: FdLink = program.take_link(id).context(what)?.try_into().context(what)?;
        link.pin(&path).context(|| format!("pin {}", path.display()))?;
        Ok(())
    }

    /// Removes the pin, unless it is of another link than the one last seen there: the plugin may
    /// have made a new one under the same name since.
    pub(super) fn detach(&mut self, interface: &str, hook: LinkHook) -> Result<(), KernelError> {
        match self.seen.remove(&(interface.to_owned(), hook)) {
            Some(id) => remove(&self.pins.link(interface, hook.into()), id),
            None => Ok(()),
        }
    }
}

/// All pins of TCX links. A file of another kind is an error that names it.
pub(super) fn list(pins: &Pins) -> Result<Vec<Pin>, KernelError> {
    let directory = pins.0.join("links");
    let mut list = Vec::new();
    for entry in fs::read_dir(&directory).context(|| format!("read {}", directory.display()))? {
        let path = entry.context(|| format!("read {}", directory.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(REMOVING) {
            continue;
        }
        let parts = HOOKS.iter().find_map(|(end, hook)| Some((name.strip_suffix(end)?, *hook)));
        let Some((interface, hook)) = parts else { return Err(foreign(&path)) };
        if let Some(link) = look(&path)? {
            list.push(Pin { interface: interface.to_owned(), hook, link, path });
        }
    }
    Ok(list)
}

/// Whether a file has a name as our pins of links have it, also one that is about to go.
pub(super) fn is_pin(name: &str) -> bool {
    let name = name.strip_suffix(REMOVING).unwrap_or(name);
    HOOKS.iter().any(|(end, _)| name.ends_with(end))
}

/// Takes up removals that a killed agent had begun.
pub(super) fn finish_removals(pins: &Pins) -> Result<(), KernelError> {
    let directory = pins.0.join("links");
    for entry in fs::read_dir(&directory).context(|| format!("read {}", directory.display()))? {
        let path = entry.context(|| format!("read {}", directory.display()))?.path();
        let name = path.to_str().and_then(|path| path.strip_suffix(REMOVING));
        let Some(original) = name.map(PathBuf::from) else { continue };
        // Back to where it was; the plan knows if it is wanted. If a new link is there, it goes.
        if rename_new(&path, &original).is_err() {
            unless_gone(fs::remove_file(&path)).context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Exchanges the program of a pinned link in place; false when its interface is gone.
pub(super) fn update(path: &Path, program: &mut SchedClassifier) -> Result<bool, KernelError> {
    let what = || format!("exchange the program of {}", path.display());
    let link = match PinnedLink::from_pin(path) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(error) => return Err(error).context(what),
    };
    let link = SchedClassifierLink::try_from(link).context(what)?;
    match program.attach_to_link(link) {
        // The pin keeps the link: what is taken here is only a descriptor.
        Ok(id) => program.take_link(id).map(|_| true).context(what),
        Err(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOLINK) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).context(what),
    }
}

/// Removes a pin if it is of this link: it is moved aside first, so that what is looked at is what
/// is removed, and moved back if it is another one.
pub(super) fn remove(path: &Path, id: u32) -> Result<(), KernelError> {
    let what = || format!("remove {}", path.display());
    let mut aside = path.as_os_str().to_owned();
    aside.push(REMOVING);
    let aside = PathBuf::from(aside);
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.context(what)?,
    }
    if look(&aside)?.is_some_and(|link| link.id != id) && rename_new(&aside, path).is_ok() {
        return Ok(());
    }
    unless_gone(fs::remove_file(&aside)).context(what)
}

/// The link behind a pin; none when the file is not there.
fn look(path: &Path) -> Result<Option<TcxLink>, KernelError> {
    let what = || format!("open {}", path.display());
    match syscall::open_pin(path) {
        Ok((fd, Kind::Link)) => match syscall::tcx_link(fd.as_fd()).context(what)? {
            Some(link) => Ok(Some(link)),
            None => Err(foreign(path)),
        },
        Ok((_, Kind::Map | Kind::Program | Kind::Other)) => Err(foreign(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(what),
    }
}

fn foreign(path: &Path) -> KernelError {
    refusal(
        path.display().to_string(),
        "this is not the pin of a TCX link of ours; remove it, or choose another directory with \
         --bpffs",
    )
}

fn rename_new(from: &Path, to: &Path) -> nix::Result<()> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
