//! Loads the programs, pins them with their maps, and takes over what is pinned already.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use cni_shim::names::Pins;
use dataplane_core::abi::ABI_VERSION;
use dataplane_core::abi::names::{MAP_CONFIG, MAPS, PROGRAMS};

use super::error::{Context as _, refusal};
use super::map::{Counters, Maps};
use super::syscall::{self, Kind};
use super::{link, log};
use crate::kernel::KernelError;

/// End of the name of a program's pin until the links have been moved to it (bpffs takes no dots).
pub(super) const NEW: &str = "_new";

/// Below the root of the pins.
pub(super) const DIRECTORIES: [&str; 3] = ["programs", "maps", "links"];

/// How often libbpf tries, too.
const LOAD_ATTEMPTS: usize = 5;

/// The pinned programs and maps.
pub(super) struct Bpf {
    pub(super) maps: Maps,
    programs: BTreeMap<&'static str, SchedClassifier>,
    /// Descriptors of all maps, to pin them again.
    map_data: BTreeMap<&'static str, MapData>,
    pins: Pins,
}

impl Bpf {
    pub(super) fn open(pins: &Pins, object: &[u8]) -> Result<Self, KernelError> {
        make_directories(pins)?;
        refuse_other_version(pins)?;
        refuse_foreign_files(pins)?;
        link::finish_removals(pins)?;
        // Also finds files that are no links, before anything is changed.
        link::list(pins)?;
        check_layouts(pins, object)?;
        let fresh = load(pins, object)?;
        let mut maps = Maps::open(pins)?;
        maps.take_over()?;
        let mut map_data = BTreeMap::new();
        for name in MAPS {
            let path = pins.map(name);
            let data = MapData::from_pin(&path).context(|| format!("open {}", path.display()))?;
            map_data.insert(name, data);
        }
        let map_ids = map_ids(&map_data)?;
        take_over(pins, fresh, &map_ids)?;
        let mut programs = BTreeMap::new();
        for name in PROGRAMS {
            let path = pins.program(name);
            let program =
                SchedClassifier::from_pin(&path).context(|| format!("open {}", path.display()))?;
            programs.insert(name, program);
        }
        log::follow(object, programs.values())?;
        Ok(Self { maps, programs, map_data, pins: pins.clone() })
    }

    /// The pinned program of this name.
    pub(super) fn program(&mut self, name: &str) -> Result<&mut SchedClassifier, KernelError> {
        self.programs.get_mut(name).ok_or_else(|| refusal(name, "no program has this name"))
    }

    /// Names of the programs by their kernel ids.
    pub(super) fn program_names(&self) -> Result<BTreeMap<u32, &'static str>, KernelError> {
        let ids = self.programs.iter().map(|(name, program)| {
            Ok((program.info().context(|| format!("ask for {name}"))?.id(), *name))
        });
        ids.collect()
    }

    /// Another handle for the counters.
    pub(super) fn counters(&self) -> Result<Counters, KernelError> {
        Counters::open(&self.pins)
    }

    /// Pins again what somebody has removed: the plugin attaches from there.
    pub(super) fn restore_pins(&mut self) -> Result<(), KernelError> {
        make_directories(&self.pins)?;
        for (name, program) in &mut self.programs {
            let path = self.pins.program(name);
            if !path.exists() {
                tracing::warn!(pin = %path.display(), "a program's pin was removed; pinned again");
                program.pin(&path).context(|| format!("pin {}", path.display()))?;
            }
        }
        for (name, map) in &self.map_data {
            let path = self.pins.map(name);
            if !path.exists() {
                tracing::warn!(pin = %path.display(), "the pin of a map was removed; pinned again");
                map.pin(&path).context(|| format!("pin {}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn make_directories(pins: &Pins) -> Result<(), KernelError> {
    for name in DIRECTORIES {
        let path = pins.0.join(name);
        if !path.is_dir() {
            fs::create_dir_all(&path).context(|| format!("create {}", path.display()))?;
        }
    }
    Ok(())
}

pub(super) fn refuse_foreign_files(pins: &Pins) -> Result<(), KernelError> {
    let fresh = PROGRAMS.map(|name| format!("{name}{NEW}"));
    let programs = PROGRAMS.iter().copied().chain(fresh.iter().map(String::as_str)).collect();
    let lists: [(PathBuf, BTreeSet<&str>, Option<Kind>); 3] = [
        (pins.0.clone(), BTreeSet::from(DIRECTORIES), None),
        (pins.0.join("programs"), programs, Some(Kind::Program)),
        (pins.0.join("maps"), BTreeSet::from(MAPS), Some(Kind::Map)),
    ];
    for (directory, allowed, kind) in lists {
        let what = || format!("read {}", directory.display());
        for entry in fs::read_dir(&directory).context(what)? {
            let path = entry.context(what)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_ours = allowed.contains(name)
                && match kind {
                    Some(kind) => {
                        let opened = syscall::open_pin(&path);
                        opened.context(|| format!("open {}", path.display()))?.1 == kind
                    }
                    None => true,
                };
            if !is_ours {
                return Err(refusal(
                    path.display().to_string(),
                    "nothing of ours has this name and kind; remove it, or choose another \
                     directory with --bpffs",
                ));
            }
        }
    }
    Ok(())
}

/// Compares pinned maps with those of the object: aya would take them whatever they are.
pub(super) fn check_layouts(pins: &Pins, object: &[u8]) -> Result<(), KernelError> {
    let object = aya_obj::Object::parse(object).context(|| "read the BPF object".to_owned())?;
    for name in MAPS {
        let wanted = object.maps.get(name).ok_or_else(|| {
            refusal("read the BPF object", format!("it has no map {name}: build it again"))
        })?;
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let data = MapData::from_pin(&path).context(|| format!("open {}", path.display()))?;
        let info = data.info().context(|| format!("ask for {}", path.display()))?;
        let kind = info.map_type().context(|| format!("ask for {}", path.display()))? as u32;
        let fields = [
            ("type", kind, wanted.map_type()),
            ("key size", info.key_size(), wanted.key_size()),
            ("value size", info.value_size(), wanted.value_size()),
            ("maximum of entries", info.max_entries(), wanted.max_entries()),
            ("flags", info.map_flags(), wanted.map_flags()),
        ];
        if let Some((field, there, here)) = fields.iter().find(|(_, there, here)| there != here) {
            return Err(other_version(
                &path,
                pins,
                &format!("it was pinned with {field} {there}, this version has {here}"),
            ));
        }
    }
    Ok(())
}

/// Before all else that is compared: another version may have other maps. What cannot be read is named behind.
pub(super) fn refuse_other_version(pins: &Pins) -> Result<(), KernelError> {
    match Maps::version(pins) {
        Ok(version) if version != 0 && version != ABI_VERSION => {
            let why = format!("its layouts have version {version}, this version has {ABI_VERSION}");
            Err(other_version(&pins.map(MAP_CONFIG), pins, &why))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn other_version(path: &Path, pins: &Pins, why: &str) -> KernelError {
    refusal(
        path.display().to_string(),
        format!(
            "{why}. Run the version that pinned it, or remove {} (all pods of this node are \
             without network until they are made again) and start this one",
            pins.0.display()
        ),
    )
}

/// Loads all programs with the maps that are pinned, and pins those that are not.
fn load(pins: &Pins, object: &[u8]) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader.load(object).context(|| "load the BPF object".to_owned())?;
    for name in PROGRAMS {
        let program = classifier(&mut ebpf, name)?;
        unless_interrupted(|| program.load()).context(|| format!("load {name}"))?;
    }
    Ok(ebpf)
}

/// Loads a program, again when a signal came meanwhile.
///
/// The verifier gives up with EAGAIN as soon as a signal is pending (`do_check` in verifier.c, as of 6.18),
/// and aya passes that on. A second attempt nearly always succeeds; a stream of signals must not hold us.
pub(super) fn unless_interrupted(
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    for _ in 1..LOAD_ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    load()
}

pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| {
            refusal("read the BPF object", format!("it has no program {name}: build it again"))
        })?
        .try_into()
        .context(|| format!("load {name}"))
}

fn map_ids(maps: &BTreeMap<&'static str, MapData>) -> Result<BTreeSet<u32>, KernelError> {
    maps.iter()
        .map(|(name, data)| Ok(data.info().context(|| format!("ask for {name}"))?.id()))
        .collect()
}

/// Leaves pinned programs that are the same, and exchanges the others: pinned under a second name,
/// then every link is moved in place, then the second name becomes the first. Killed in between,
/// the next start knows from the two pins which program of ours a link runs.
fn take_over(pins: &Pins, mut fresh: Ebpf, maps: &BTreeSet<u32>) -> Result<(), KernelError> {
    let mut known = BTreeMap::new();
    let mut stale = BTreeSet::new();
    for name in PROGRAMS {
        let (path, path_new) = (pins.program(name), new_pin(pins, name));
        let program = classifier(&mut fresh, name)?;
        let info = program.info().context(|| format!("ask for {name}"))?;
        let pinned = pinned(&path)?;
        if let Some(pinned) = &pinned {
            known.insert(pinned.id(), name);
        }
        if let Some(left) = self::pinned(&path_new)? {
            known.insert(left.id(), name);
            fs::remove_file(&path_new).context(|| format!("remove {}", path_new.display()))?;
        }
        let is_current = match &pinned {
            Some(pinned) => pinned.tag() == info.tag() && uses_only(&path, maps)?,
            None => false,
        };
        if !is_current {
            program.pin(&path_new).context(|| format!("pin {}", path_new.display()))?;
            stale.insert(name);
        }
    }
    let mut current = BTreeMap::new();
    for name in PROGRAMS {
        let path = if stale.contains(name) { new_pin(pins, name) } else { pins.program(name) };
        let program =
            SchedClassifier::from_pin(&path).context(|| format!("open {}", path.display()))?;
        current.insert(name, program);
    }
    let moved = move_links(pins, &known, &mut current)?;
    if !known.is_empty() {
        tracing::info!(exchanged = ?stale, links = moved, "pinned programs taken over");
    }
    for name in stale {
        let (path, path_new) = (pins.program(name), new_pin(pins, name));
        fs::rename(&path_new, &path)
            .context(|| format!("rename {} to {}", path_new.display(), path.display()))?;
    }
    Ok(())
}

/// Moves each pinned link that runs an earlier program of ours to the current one, and counts them.
fn move_links(
    pins: &Pins,
    known: &BTreeMap<u32, &'static str>,
    current: &mut BTreeMap<&'static str, SchedClassifier>,
) -> Result<usize, KernelError> {
    let mut moved = 0;
    for pin in link::list(pins)? {
        let name = known.get(&pin.link.program);
        let Some(program) = name.and_then(|name| current.get_mut(name)) else { continue };
        let id = program.info().context(|| format!("ask for {name:?}"))?.id();
        if id == pin.link.program {
            continue;
        }
        if link::update(&pin.path, program)? {
            moved += 1;
        } else {
            link::remove(&pin.path, pin.link.id)?;
        }
    }
    Ok(moved)
}

/// A program with a map of its own (constants) is never the same as another: the tag does not tell what is in it.
fn uses_only(program: &Path, maps: &BTreeSet<u32>) -> Result<bool, KernelError> {
    let used = syscall::open_pin(program).and_then(|(fd, _)| syscall::program_maps(fd.as_fd()));
    let used = used.context(|| format!("ask for the maps of {}", program.display()))?;
    Ok(used.iter().all(|id| maps.contains(id)))
}

fn pinned(path: &Path) -> Result<Option<ProgramInfo>, KernelError> {
    if !path.exists() {
        return Ok(None);
    }
    ProgramInfo::from_pin(path).map(Some).context(|| format!("open {}", path.display()))
}

fn new_pin(pins: &Pins, name: &str) -> PathBuf {
    pins.program(&format!("{name}{NEW}"))
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;

    #[test]
    fn a_signal_while_a_program_is_loaded_is_no_failure() {
        let attempts = |interrupted: usize, kind: ErrorKind| {
            let mut count = 0_usize;
            let result = unless_interrupted(|| {
                count += 1;
                if count > interrupted {
                    return Ok(());
                }
                let (io_error, verifier_log) = (kind.into(), VerifierLog::new(String::new()));
                Err(ProgramError::LoadError { io_error, verifier_log })
            });
            (count, result.is_ok())
        };
        assert_eq!(attempts(0, ErrorKind::WouldBlock), (1, true));
        assert_eq!(attempts(4, ErrorKind::WouldBlock), (5, true));
        assert_eq!(attempts(5, ErrorKind::WouldBlock), (5, false));
        assert_eq!(attempts(1, ErrorKind::PermissionDenied), (1, false));
    }
}
