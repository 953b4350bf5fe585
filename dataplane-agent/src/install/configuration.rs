//! The network configuration: a list with our plugin, and behind it `portmap` where that is installed, for
//! `hostPort`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cni_shim::names::DEFAULT_SOCKET;
use serde_json::{Value, json};

use super::{InstallError, PLAIN, versions, write_whole};
use crate::advice::Advice;

/// Its name: of several, runtimes take the first.
pub const CONFIGURATION: &str = "05-podwire.conflist";
/// The plugin that publishes ports of the host.
const PORTMAP: &str = "portmap";
/// The newest version, which not all plugins have that may come behind ours.
const NEWEST: &str = "1.1.0";
/// What they read (containerd and CRI-O: `libcni.ConfFiles`).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
const MODE: u32 = 0o644;

/// The configuration and its place.
#[derive(Debug)]
pub(super) struct Configuration {
    directory: PathBuf,
    plugins: Option<PathBuf>,
    socket: PathBuf,
    put: bool,
    /// When the plugin behind ours was made, and whether it has the newest version: one that does not answer has
    /// only what all have.
    asked: Option<(SystemTime, bool)>,
}

impl Configuration {
    pub(super) fn new(directory: PathBuf, plugins: Option<PathBuf>, socket: &Path) -> Self {
        Self { directory, plugins, socket: socket.to_owned(), put: false, asked: None }
    }

    /// Puts it in its place, if it is not there as it should be.
    pub(super) async fn put(&mut self) -> Result<(), InstallError> {
        let file = self.directory.join(CONFIGURATION);
        let text = format!("{:#}\n", self.list().await);
        if fs::read(&file).is_ok_and(|there| there == text.as_bytes()) {
            self.put = true;
            return Ok(());
        }
        write_whole(&file, text.as_bytes(), MODE).map_err(|source| InstallError {
            what: "write",
            path: file.clone(),
            source,
            remedy: "make its directory one of the host that can be written, or correct --cni-conf-dir",
        })?;
        if self.put {
            tracing::warn!(file = %file.display(), "the network configuration was changed: put back");
        } else {
            tracing::info!(file = %file.display(), "the network configuration is in its place");
        }
        self.put = true;
        Ok(())
    }

    async fn has_newest(&mut self, plugin: &Path) -> bool {
        let made = fs::metadata(plugin).and_then(|file| file.modified());
        let made = made.unwrap_or(SystemTime::UNIX_EPOCH);
        match self.asked {
            Some((before, answer)) if before == made => answer,
            _ => {
                let versions = versions(plugin).await.unwrap_or_default();
                let answer = versions.iter().any(|version| version == NEWEST);
                self.asked = Some((made, answer));
                answer
            }
        }
    }

    /// What runtimes take in place of ours.
    pub(super) fn rival(&self) -> Option<String> {
        let first = configurations(&self.directory).ok()?.into_iter().next()?;
        let is_before = first.as_str() < CONFIGURATION;
        is_before.then(|| rival(&self.directory, &first).to_string())
    }

    async fn list(&mut self) -> Value {
        let mut own = json!({ "type": "podwire" });
        if self.socket != Path::new(DEFAULT_SOCKET) {
            own["socket"] = json!(self.socket);
        }
        let mut plugins = vec![own];
        let mut known = vec![PLAIN, NEWEST];
        let portmap = self.plugins.as_ref().map(|directory| directory.join(PORTMAP));
        // Also a link that leads to a place which this container does not see.
        if let Some(portmap) = portmap.filter(|portmap| fs::symlink_metadata(portmap).is_ok()) {
            plugins.push(json!({ "type": PORTMAP, "capabilities": { "portMappings": true } }));
            if !self.has_newest(&portmap).await {
                known.pop();
            }
        }
        json!({
            "cniVersion": PLAIN, "cniVersions": known, "name": "podwire", "plugins": plugins,
        })
    }
}

/// Names of the configurations that runtimes read, in their order.
///
/// # Errors
/// When the directory cannot be read.
pub fn configurations(directory: &Path) -> io::Result<Vec<String>> {
    let is_read = |name: &String| {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    };
    let names = fs::read_dir(directory)?.flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> =
        names.map(|name| name.to_string_lossy().into_owned()).filter(is_read).collect();
    names.sort();
    Ok(names)
}

/// What to say of a configuration in front of ours.
pub fn rival(directory: &Path, name: &str) -> Advice {
    let file = directory.join(name);
    Advice::new(
        format!("the container runtime takes {} and not {CONFIGURATION}", file.display()),
        "move it away when no pod uses it any more",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Path) -> Value {
        serde_json::from_slice(&fs::read(directory.join(CONFIGURATION)).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn portmap_comes_behind_ours_and_may_be_old() {
        let host = tempfile::tempdir().unwrap();
        let mut configuration = Configuration::new(
            host.path().to_owned(),
            Some(host.path().to_owned()),
            Path::new(DEFAULT_SOCKET),
        );
        configuration.put().await.unwrap();
        let alone = read(host.path());
        assert_eq!(alone["plugins"], json!([{ "type": "podwire" }]));
        assert_eq!(alone["cniVersions"], json!(["1.0.0", "1.1.0"]));
        for (versions, wanted) in
            [(r#""1.0.0""#, json!(["1.0.0"])), (r#""1.0.0","1.1.0""#, json!(["1.0.0", "1.1.0"]))]
        {
            let portmap = host.path().join(PORTMAP);
            let answer = format!("{{\"supportedVersions\":[{versions}]}}");
            let script = format!("#!/bin/sh\ncat >/dev/null\necho '{answer}'\n");
            crate::fake::write_program(&portmap, &script);
            configuration.put().await.unwrap();
            let both = read(host.path());
            assert_eq!(both["plugins"][1]["type"], "portmap");
            assert_eq!(both["cniVersions"], wanted);
        }
        fs::remove_file(host.path().join(PORTMAP)).unwrap();
        std::os::unix::fs::symlink("/of/the/host/portmap", host.path().join(PORTMAP)).unwrap();
        configuration.put().await.unwrap();
        let linked = read(host.path());
        assert_eq!(linked["plugins"][1]["type"], "portmap");
        assert_eq!(linked["cniVersions"], json!(["1.0.0"]));
    }

    #[tokio::test]
    async fn what_is_changed_comes_back_and_rivals_are_named() {
        let host = tempfile::tempdir().unwrap();
        let socket = Path::new("/run/other/agent.sock");
        let mut configuration = Configuration::new(host.path().to_owned(), None, socket);
        configuration.put().await.unwrap();
        assert_eq!(read(host.path())["plugins"][0]["socket"], "/run/other/agent.sock");
        fs::write(host.path().join(CONFIGURATION), "{}").unwrap();
        configuration.put().await.unwrap();
        assert_eq!(read(host.path())["name"], "podwire");
        for name in ["01-notes.txt", "10-flannel.conflist", ".00.conflist.new"] {
            fs::write(host.path().join(name), "").unwrap();
        }
        assert_eq!(configuration.rival(), None);
        fs::write(host.path().join("00-calico.conflist"), "").unwrap();
        let rival = configuration.rival().unwrap();
        assert!(rival.contains("00-calico.conflist and not 05-podwire.conflist"), "{rival}");
    }
}
