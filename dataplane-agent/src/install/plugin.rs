//! The plugin in the runtime's directory: a file for each version, and a link that names one of them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{InstallError, hidden, versions, write_whole};

/// Its name, in the image and on the host.
pub(super) const NAME: &str = "podwire";
const MODE: u32 = 0o755;
/// Bytes of the content's hash in the name of a version.
const HASH_BYTES: usize = 6;
const BUSY_TRIES: u32 = 100;
const BUSY_TIME: Duration = Duration::from_millis(5);

/// The plugin and its place.
#[derive(Debug)]
pub(super) struct Plugin {
    source: PathBuf,
    directory: PathBuf,
    /// The file of this version, once it is in its place.
    version: Option<(String, State)>,
}

/// A file as it was put: whoever writes to it gives it another time, but for the length of a tick of the kernel's clock
/// (before 6.13), in which length and mode tell most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
    length: u64,
    mode: u32,
}

impl Plugin {
    pub(super) fn beside_this_program(directory: PathBuf) -> Result<Self, InstallError> {
        let own = std::env::current_exe();
        let source = own.map(|own| own.with_file_name(NAME)).unwrap_or_else(|_| NAME.into());
        Self::new(source, directory)
    }

    fn new(source: PathBuf, directory: PathBuf) -> Result<Self, InstallError> {
        let found = fs::metadata(&source);
        found.map_err(|error| InstallError {
            what: "find the plugin",
            path: source.clone(),
            source: error,
            remedy: "put it beside podwire-agent, or leave out --cni-bin-dir",
        })?;
        Ok(Self { source, directory, version: None })
    }

    /// Puts it in its place, if it is not there. Whoever starts it meanwhile finds this version or the one before.
    pub(super) async fn put(&mut self) -> Result<(), InstallError> {
        if self.version.as_ref().is_some_and(|(version, state)| self.is_whole(version, *state)) {
            return Ok(());
        }
        let again = self.version.is_some();
        let version = self.put_version().await.map_err(|source| InstallError {
            what: "put the plugin into",
            path: self.directory.clone(),
            source,
            remedy: "make it a directory of the host that can be written and run programs, or correct --cni-bin-dir",
        })?;
        if again {
            tracing::warn!(directory = %self.directory.display(), "the plugin was removed or changed: whole again");
        } else {
            tracing::info!(directory = %self.directory.display(), version, "the plugin is in its place");
        }
        self.version = self.state(&version).map(|state| (version, state));
        Ok(())
    }

    fn is_whole(&self, version: &str, state: State) -> bool {
        let link = fs::read_link(self.directory.join(NAME));
        link.is_ok_and(|to| to == Path::new(version)) && self.state(version) == Some(state)
    }

    fn state(&self, version: &str) -> Option<State> {
        let file = fs::metadata(self.directory.join(version)).ok()?;
        let changed = (file.ctime(), file.ctime_nsec());
        Some(State { inode: file.ino(), changed, length: file.len(), mode: file.mode() })
    }

    async fn put_version(&self) -> io::Result<String> {
        let content = fs::read(&self.source)?;
        let hash = HEXLOWER.encode(&Sha256::digest(&content)[..HASH_BYTES]);
        let version = format!("{NAME}-{}-{hash}", env!("CARGO_PKG_VERSION"));
        let file = self.directory.join(&version);
        let is_whole = fs::read(&file).is_ok_and(|there| there == content)
            && fs::metadata(&file).is_ok_and(|file| file.permissions().mode() & MODE == MODE);
        if !is_whole {
            write_whole(&file, &content, MODE)?;
        }
        try_out(&file).await?;
        let link = self.directory.join(NAME);
        let before = fs::read_link(&link).ok();
        if before.as_deref() != Some(Path::new(&version)) {
            let new = hidden(&link);
            let _ = fs::remove_file(&new);
            symlink(&version, &new)?;
            fs::rename(&new, &link)?;
            self.remove_versions(&[
                Some(version.as_str()),
                before.as_deref().and_then(Path::to_str),
            ]);
        }
        Ok(version)
    }

    /// But for the one before: an agent of that version may come back.
    fn remove_versions(&self, kept: &[Option<&str>]) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if is_version(&name) && !kept.contains(&Some(name.as_ref())) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Starts the plugin once before others do. A child of this process that has not started its program yet may
/// still hold the file open for writing, and then nobody can start it.
async fn try_out(file: &Path) -> io::Result<()> {
    for _ in 0..BUSY_TRIES {
        match versions(file).await {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(BUSY_TIME).await;
            }
            result => return result.map(drop),
        }
    }
    Err(io::ErrorKind::ExecutableFileBusy.into())
}

/// Whether a file has a name as versions have it.
pub(super) fn is_version(name: &str) -> bool {
    let hash = name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-'));
    let hash = hash.and_then(|rest| rest.rsplit_once('-')).map(|(_, hash)| hash);
    hash.is_some_and(|hash| {
        hash.len() == 2 * HASH_BYTES && HEXLOWER.decode(hash.as_bytes()).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A plugin that says `word`.
    fn source(directory: &Path, word: &str) -> PathBuf {
        let source = directory.join(format!("image-{word}"));
        let answer = format!("{{\"supportedVersions\":[\"{word}\"]}}");
        fs::write(&source, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        source
    }

    async fn said(plugin: &Path) -> String {
        versions(plugin).await.unwrap().concat()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_upgrade_leaves_no_moment_without_a_plugin() {
        let image = tempfile::tempdir().unwrap();
        let host = tempfile::tempdir().unwrap();
        let at = host.path().join(NAME);
        for others in ["bridge", "podwire-exporter", "podwire-1-0123456789ag"] {
            fs::write(host.path().join(others), "not ours").unwrap();
        }
        let sources = ["a", "b", "c"].map(|word| source(image.path(), word));
        let plugins = sources.map(|source| Plugin::new(source, host.path().to_owned()).unwrap());
        let put = async |plugin: &Plugin| plugin.put_version().await.unwrap();
        put(&plugins[0]).await;
        let over = Arc::new(AtomicBool::new(false));
        let others = tokio::spawn({
            let (at, over) = (at.clone(), over.clone());
            async move {
                while !over.load(Ordering::Relaxed) {
                    assert!(["a", "b", "c"].contains(&said(&at).await.as_str()));
                }
            }
        });
        for round in 0..30 {
            put(&plugins[round % 3]).await;
        }
        over.store(true, Ordering::Relaxed);
        others.await.unwrap();
        assert_eq!(said(&at).await, "c");
        let names = fs::read_dir(host.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        let versions = names.iter().filter(|name| is_version(name)).count();
        assert_eq!((versions, names.len()), (2, 6), "{names:?}");
    }

    #[tokio::test]
    async fn what_is_removed_or_spoilt_comes_back() {
        let image = tempfile::tempdir().unwrap();
        let host = tempfile::tempdir().unwrap();
        let at = host.path().join(NAME);
        let mut plugin = Plugin::new(source(image.path(), "a"), host.path().to_owned()).unwrap();
        fs::write(&at, "a copy by hand").unwrap();
        for damage in [
            |_: &Path| {},
            |at: &Path| fs::remove_file(at).unwrap(),
            |at: &Path| fs::remove_file(fs::canonicalize(at).unwrap()).unwrap(),
            |at: &Path| fs::write(fs::canonicalize(at).unwrap(), "").unwrap(),
            |at: &Path| {
                let file = fs::canonicalize(at).unwrap();
                let text = fs::read_to_string(&file).unwrap();
                fs::write(file, text.replace("[\"a\"]", "[\"b\"]")).unwrap();
            },
            |at: &Path| {
                let file = fs::canonicalize(at).unwrap();
                fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
            },
        ] {
            damage(&at);
            plugin.put().await.unwrap();
            assert_eq!(said(&at).await, "a");
        }
    }

    #[tokio::test]
    async fn a_plugin_or_a_directory_that_is_missing_is_named() {
        let image = tempfile::tempdir().unwrap();
        let error = Plugin::new(image.path().join("podwire"), "/x".into()).unwrap_err();
        assert!(error.to_string().contains("beside podwire-agent"), "{error}");
        let missing = image.path().join("missing");
        let mut plugin = Plugin::new(source(image.path(), "a"), missing).unwrap();
        let error = plugin.put().await.unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("--cni-bin-dir"), "{error}");
    }
}
