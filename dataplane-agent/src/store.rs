//! What outlives the agent: one small file per attachment, and the lock of the state directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cni_shim::names::{LOCK_DIRECTORY, beside};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::files;
use crate::model::{Attached, is_pod_interface};

mod missing;
mod raised;

pub use self::raised::raised;

/// End of the name of a file that is being written.
const NEW: &str = "new";
/// In the state directory, as the next ones are.
pub const LOCK_FILE: &str = "lock";
/// The directory of the files of attachments.
pub const ATTACHMENTS: &str = "attachments";
/// What an earlier agent knew of the nodes.
pub const NODES_FILE: &str = "nodes.json";

/// Why a file of the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent has the pins.
    #[error(
        "another agent uses the pins below {}: stop it first, or give this one another --bpffs",
        _0.display()
    )]
    PinsBusy(PathBuf),
    /// Another agent has the directory.
    #[error(
        "another agent{} uses the state directory {}: stop it first, or give this one another \
         --state-dir (and --socket and --bpffs)",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), directory.display()
    )]
    Busy {
        /// The directory.
        directory: PathBuf,
        /// Its process, where the lock file says so.
        pid: Option<u32>,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}

/// The state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    attachments: PathBuf,
    lock: Flock<File>,
}

/// What [`Store::load`] found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The attachments, by the name of the host side.
    pub attachments: Vec<(String, Attached)>,
    /// Files that are not attachments, by the name that the file has, and why not.
    pub unreadable: Vec<(String, String)>,
}

impl Store {
    /// Makes the directory where it is missing and locks it.
    ///
    /// # Errors
    /// When another agent has it, or it cannot be made.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let attachments = directory.join(ATTACHMENTS);
        make_directory(&attachments)?;
        let lock = lock_directory(directory)?;
        Ok(Self { directory: directory.to_owned(), attachments, lock })
    }

    /// Makes directory, lock and files again where somebody has removed them; true if so.
    ///
    /// # Errors
    /// When another agent has the directory meanwhile, or the system refuses.
    pub fn restore<'a>(
        &mut self,
        attachments: impl Iterator<Item = (&'a String, &'a Attached)>,
    ) -> Result<bool, StoreError> {
        let mut is_new = false;
        if !self.is_locked() {
            make_directory(&self.directory)?;
            self.lock = lock_directory(&self.directory)?;
            is_new = true;
        }
        if !self.attachments.is_dir() {
            make_directory(&self.attachments)?;
        }
        for (name, attached) in attachments {
            if !self.path(name).exists() {
                self.put(name, attached)?;
                is_new = true;
            }
        }
        Ok(is_new)
    }

    /// The file that is locked is still the one in the directory.
    fn is_locked(&self) -> bool {
        let there = fs::metadata(self.directory.join(LOCK_FILE));
        there
            .and_then(|there| Ok((there.ino(), self.lock.metadata()?.ino())))
            .is_ok_and(|(there, held)| there == held)
    }

    /// Reads all attachment files.
    ///
    /// # Errors
    /// When the directory cannot be read. A bad file is not an error but in the result.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let unreadable = io_error("cannot read", &self.attachments);
        for entry in fs::read_dir(&self.attachments).map_err(unreadable)? {
            let path = entry.map_err(io_error("cannot read", &self.attachments))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if extension == Some(NEW) {
                // Left by an agent that was killed between write and rename: nobody got a reply.
                let _ = fs::remove_file(&path);
                continue;
            }
            if extension != Some("json") || !is_pod_interface(stem) {
                tracing::warn!(file = %path.display(), "not a file of ours: left alone");
                continue;
            }
            match read(&path, stem) {
                Ok(attached) => loaded.attachments.push((stem.to_owned(), attached)),
                Err(why) => loaded.unreadable.push((stem.to_owned(), why)),
            }
        }
        Ok(loaded)
    }

    /// Writes an attachment file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, name: &str, attached: &Attached) -> Result<(), StoreError> {
        let path = self.path(name);
        let text = serde_json::to_vec_pretty(attached).map_err(io::Error::other);
        let text = text.map_err(io_error("cannot write", &path))?;
        write_whole(&path, &text)
    }

    /// Whether [`Store::put`] would work: the directory may be full, or read-only by now.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn try_to_write(&self) -> Result<(), StoreError> {
        // As long as that of a pod, and without a name: whoever is killed here leaves nothing.
        tempfile::tempfile_in(&self.attachments)
            .and_then(|mut file| file.write_all(&[b' '; 1024]))
            .map_err(io_error("cannot write into", &self.attachments))
    }

    /// Removes an attachment file. One that is gone is no error.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        remove_file(&self.path(name))
    }

    /// The file of an attachment, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.attachments.join(format!("{name}.json"))
    }
}

fn read(path: &Path, stem: &str) -> Result<Attached, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let attached: Attached = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if attached.attachment.host_ifname() == stem {
        Ok(attached)
    } else {
        Err(format!("it belongs to {}", attached.attachment.host_ifname()))
    }
}

/// Makes a directory, and those above it, for its owner alone.
///
/// # Errors
/// When the system refuses.
pub fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("cannot create", path))
}

/// Removes a file. One that is gone is no error.
fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("cannot remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Replaces a file in one step; readers see the old or the new content.
///
/// # Errors
/// When the system refuses.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension(NEW);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(io_error("cannot write", path))
}

/// Whether [`write_whole`] of this file makes one with the name.
pub(crate) fn is_or_becomes(name: &str, file: &str) -> bool {
    name == file || Path::new(name) == Path::new(file).with_extension(NEW)
}

/// Makes the directory of the pins and locks it: two agents with one set of maps would undo each other.
///
/// # Errors
/// When another agent has it, or it cannot be made.
pub fn lock_pins(bpffs: &Path) -> Result<Flock<File>, StoreError> {
    make_directory(bpffs)?;
    let directory = File::open(bpffs).map_err(io_error("cannot open", bpffs))?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(StoreError::PinsBusy(bpffs.to_owned())),
        Err((_, errno)) => Err(io_error("cannot lock", bpffs)(errno.into())),
    }
}

/// Locks a state directory that is there.
///
/// # Errors
/// When another agent has it, or the system refuses.
pub fn lock_directory(directory: &Path) -> Result<Flock<File>, StoreError> {
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("cannot open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let pid = std::process::id().to_string();
            let written = lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes()));
            written.map_err(io_error("cannot write", &path))?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            Err(StoreError::Busy { directory: directory.to_owned(), pid })
        }
        Err((_, errno)) => Err(io_error("cannot lock", &path)(errno.into())),
    }
}

/// What of a state directory is ours; the lock comes last.
///
/// # Errors
/// When a directory cannot be read.
pub fn own_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_attachment = |name: &str| {
        let stem = [".json", ".new"].iter().find_map(|end| name.strip_suffix(end));
        stem.is_some_and(is_pod_interface)
    };
    let lists = [NODES_FILE, missing::FILE, raised::FILE];
    let is_list = |name: &str| lists.iter().any(|file| is_or_becomes(name, file));
    let mut own = files::list(&directory.join(ATTACHMENTS), is_attachment)?;
    own.extend(files::list(directory, |name| name == ATTACHMENTS || is_list(name))?);
    own.extend(files::list(directory, |name| name == LOCK_FILE)?);
    Ok(own)
}

/// Makes the 256 lock files that plugin and sweep share.
///
/// # Errors
/// When the system refuses.
pub fn make_plugin_locks(socket: &Path) -> Result<(), StoreError> {
    let directory = beside(socket, LOCK_DIRECTORY);
    make_directory(&directory)?;
    for number in 0..=u8::MAX {
        open_plugin_lock(socket, number)?;
    }
    Ok(())
}

/// Takes the lock under which the plugin makes and unmakes an interface; none while it is held.
///
/// # Errors
/// When the name is not that of a pod's interface, or the system refuses.
pub fn try_plugin_lock(socket: &Path, interface: &str) -> Result<Option<Flock<File>>, StoreError> {
    let Some(number) = plugin_lock_number(interface) else {
        let source = io::Error::other("not the name of a pod's interface");
        return Err(io_error("cannot lock", Path::new(interface))(source));
    };
    let file = open_plugin_lock(socket, number)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => {
            Err(io_error("cannot lock", &beside(socket, LOCK_DIRECTORY))(errno.into()))
        }
    }
}

fn open_plugin_lock(socket: &Path, number: u8) -> Result<File, StoreError> {
    let path = beside(socket, LOCK_DIRECTORY).join(format!("{number:02x}"));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("cannot open", &path))
}

/// The first byte of the hash that the name of the interface spells: five bits and three.
pub(crate) fn plugin_lock_number(interface: &str) -> Option<u8> {
    if !is_pod_interface(interface) {
        return None;
    }
    let digit = |at: usize| match interface.as_bytes().get(at)? {
        letter @ b'a'..=b'z' => letter.checked_sub(b'a'),
        number => number.checked_sub(b'2')?.checked_add(26),
    };
    Some((digit(2)? << 3) | (digit(3)? >> 2))
}

#[cfg(test)]
mod tests {
    use cni_shim::names::Attachment;

    use super::*;
    use crate::fake;

    #[test]
    fn the_lock_number_is_that_of_the_plugin() {
        let socket = Path::new("/run/x/agent.sock");
        for n in 0..500 {
            let attachment = Attachment { container_id: format!("c{n}"), ifname: "eth0".into() };
            let number = plugin_lock_number(&attachment.host_ifname()).unwrap();
            let want = Path::new("/run/x/locks").join(format!("{number:02x}"));
            assert_eq!(attachment.lock_file(socket), want);
        }
        assert_eq!(plugin_lock_number("eth0"), None);
    }

    #[test]
    fn what_is_put_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let attached = fake::attached("c1", 7, "10.244.1.2", 99);
        let name = attached.attachment.host_ifname();
        store.put(&name, &attached).unwrap();
        fs::write(directory.path().join("attachments/half.new"), "{").unwrap();
        let other = store.path("pwaaaaaaaaaaaaa");
        fs::copy(store.path(&name), other).unwrap();
        fs::write(store.path("pwbbbbbbbbbbbbb"), "{").unwrap();
        let mut loaded = store.load().unwrap();
        loaded.unreadable.sort();
        assert_eq!(loaded.attachments, [(name.clone(), attached)]);
        assert_eq!(loaded.unreadable.len(), 2);
        assert!(loaded.unreadable[0].1.contains("belongs to"), "{:?}", loaded.unreadable);
        assert!(!directory.path().join("attachments/half.new").exists());
        store.remove(&name).unwrap();
        store.remove(&name).unwrap();
        assert_eq!(store.load().unwrap().attachments, []);
    }

    #[test]
    fn fields_of_a_later_release_are_no_fault() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let attached = fake::attached("c1", 7, "10.244.1.2", 99);
        let name = attached.attachment.host_ifname();
        let mut document = serde_json::to_value(&attached).unwrap();
        document["later"] = true.into();
        fs::write(store.path(&name), document.to_string()).unwrap();
        assert_eq!(store.load().unwrap().attachments, [(name, attached)]);
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let files = ["foo.json", "README", "pwaaaaaaaaaaaaa.json.bak"];
        for file in files {
            fs::write(directory.path().join("attachments").join(file), "{").unwrap();
        }
        assert_eq!(store.load().unwrap().unreadable, []);
        for file in files {
            assert!(directory.path().join("attachments").join(file).exists(), "{file}");
        }
    }

    #[test]
    fn what_is_removed_is_restored() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state");
        let mut store = Store::open(&directory).unwrap();
        let attached = fake::attached("c1", 7, "10.244.1.2", 99);
        let name = attached.attachment.host_ifname();
        store.put(&name, &attached).unwrap();
        let restore = |store: &mut Store| store.restore([(&name, &attached)].into_iter());
        assert!(!restore(&mut store).unwrap());
        fs::remove_dir_all(&directory).unwrap();
        assert!(restore(&mut store).unwrap());
        assert_eq!(store.load().unwrap().attachments.len(), 1);
        assert!(matches!(Store::open(&directory), Err(StoreError::Busy { .. })));
        fs::remove_dir_all(&directory).unwrap();
        let _other = Store::open(&directory).unwrap();
        assert!(matches!(restore(&mut store), Err(StoreError::Busy { .. })));
    }

    #[test]
    fn one_agent_per_directory() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(store);
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn one_agent_per_set_of_pins() {
        let directory = tempfile::tempdir().unwrap();
        let pins = directory.path().join("podwire");
        let lock = lock_pins(&pins).unwrap();
        assert!(lock_pins(&pins).unwrap_err().to_string().contains("--bpffs"));
        drop(lock);
        lock_pins(&pins).unwrap();
    }

    #[test]
    fn plugin_locks_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        make_plugin_locks(&socket).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("locks")).unwrap().count(), 256);
        let held = try_plugin_lock(&socket, "pwaaaaaaaaaaaaa").unwrap();
        assert!(held.is_some());
        assert!(
            try_plugin_lock(&socket, "pwaabaaaaaaaaaa").unwrap().is_none(),
            "the same first byte"
        );
        assert!(try_plugin_lock(&socket, "pwbaaaaaaaaaaaa").unwrap().is_some());
        drop(held);
        assert!(try_plugin_lock(&socket, "pwaaaaaaaaaaaaa").unwrap().is_some());
    }
}
