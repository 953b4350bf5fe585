//! What is pinned, looked at without taking it over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aya::programs::ProgramInfo;
use cni_shim::names::Pins;
use dataplane_core::abi::names::PROGRAMS;

use crate::kernel::live::error::Context as _;
use crate::kernel::live::{OBJECT, bpf, link};
use crate::kernel::{KernelError, LinkHook};

/// A pinned program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedProgram {
    /// Of the kernel.
    pub id: u32,
    /// A hash of its instructions.
    pub tag: u64,
}

/// A pinned link that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedLink {
    /// The interface.
    pub ifindex: u32,
    /// Where on it.
    pub hook: LinkHook,
    /// The program's id.
    pub program: u32,
}

/// The pinned programs, by name; empty where nothing has been pinned.
///
/// # Errors
/// When a pin cannot be opened.
pub fn programs(bpffs: &Path) -> Result<BTreeMap<&'static str, PinnedProgram>, KernelError> {
    let pins = Pins(bpffs.to_path_buf());
    let mut programs = BTreeMap::new();
    for name in PROGRAMS {
        let path = pins.program(name);
        if path.exists() {
            let info =
                ProgramInfo::from_pin(&path).context(|| format!("open {}", path.display()))?;
            programs.insert(name, PinnedProgram { id: info.id(), tag: info.tag() });
        }
    }
    Ok(programs)
}

/// The pinned links whose interface is there.
///
/// # Errors
/// When a pin cannot be opened.
pub fn links(bpffs: &Path) -> Result<Vec<PinnedLink>, KernelError> {
    let pins = Pins(bpffs.to_path_buf());
    if !pins.0.join("links").is_dir() {
        return Ok(Vec::new());
    }
    let alive = link::list(&pins)?.into_iter().filter(|pin| pin.link.ifindex != 0);
    Ok(alive
        .map(|pin| PinnedLink {
            ifindex: pin.link.ifindex,
            hook: pin.link.hook,
            program: pin.link.program,
        })
        .collect())
}

/// Whether this version can take over what is pinned.
///
/// # Errors
/// When it cannot, with what the agent would say.
pub fn check(bpffs: &Path) -> Result<(), KernelError> {
    let pins = Pins(bpffs.to_path_buf());
    if !bpf::DIRECTORIES.iter().all(|name| pins.0.join(name).is_dir()) {
        return Ok(());
    }
    bpf::refuse_other_version(&pins)?;
    bpf::refuse_foreign_files(&pins)?;
    link::list(&pins)?;
    bpf::check_layouts(&pins, OBJECT)
}

/// Names of what stands in a directory of a BPF filesystem; nothing where it cannot be read.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
