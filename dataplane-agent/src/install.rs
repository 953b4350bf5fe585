//! What the agent puts on its host where it comes as a pod: the plugin, and the network configuration by which
//! the container runtime finds it.
//!
//! The plugin comes first, and the configuration last of all, when a pod could really be started: with it the node
//! is Ready. Both stay when the agent ends, as forwarding does, and come back when somebody removes them.

mod configuration;
mod plugin;

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::watch;

use self::configuration::Configuration;
pub use self::configuration::{CONFIGURATION, configurations, rival};
use self::plugin::Plugin;
use crate::files;
use crate::nodes::source::Readiness;

/// How soon what was removed is back.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What every runtime and plugin takes.
const PLAIN: &str = "1.0.0";
/// A plugin has this long to name its versions.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Directories of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directories {
    /// Where the runtime finds plugins; none: it is not put there.
    pub plugins: Option<PathBuf>,
    /// Where the runtime finds configurations; none: it is not put there.
    pub configurations: Option<PathBuf>,
}

/// Why something is not on the host.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}; {remedy}", path.display())]
pub struct InstallError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
    remedy: &'static str,
}

/// What is kept on the host.
#[derive(Debug)]
pub struct Install {
    plugin: Option<Plugin>,
    configuration: Option<Configuration>,
    problems: watch::Sender<Vec<String>>,
}

impl Install {
    /// Of the plugin that lies beside this program.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(directories: Directories, socket: &Path) -> Result<Self, InstallError> {
        let Directories { plugins, configurations } = directories;
        let chained = plugins.clone();
        Ok(Self {
            plugin: plugins.map(Plugin::beside_this_program).transpose()?,
            configuration: configurations.map(|at| Configuration::new(at, chained, socket)),
            problems: watch::Sender::default(),
        })
    }

    /// What is wrong with it, from now on.
    pub fn problems(&self) -> watch::Receiver<Vec<String>> {
        self.problems.subscribe()
    }

    /// Keeps everything in its place.
    pub async fn keep(mut self, mut readiness: watch::Receiver<Readiness>) {
        if self.plugin.is_none() && self.configuration.is_none() {
            return;
        }
        loop {
            let ready = *readiness.borrow_and_update() == Readiness::Ready;
            self.look(ready).await;
            tokio::select! {
                Ok(()) = readiness.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&mut self, ready: bool) {
        let mut problems = Vec::new();
        if let Some(plugin) = &mut self.plugin {
            problems.extend(plugin.put().await.err().map(|error| error.to_string()));
        }
        let has_plugin = problems.is_empty();
        if let Some(configuration) = &mut self.configuration {
            if ready && has_plugin {
                problems.extend(configuration.put().await.err().map(|error| error.to_string()));
            }
            problems.extend(configuration.rival());
        }
        for new in problems.iter().filter(|problem| !self.problems.borrow().contains(problem)) {
            tracing::warn!(problem = %new, "on the host");
        }
        self.problems.send_if_modified(|before| {
            let is_new = *before != problems;
            *before = problems;
            is_new
        });
    }
}

/// Our configuration in a directory, as far as it is there.
///
/// # Errors
/// When the directory cannot be read.
pub fn own_configurations(directory: &Path) -> io::Result<Vec<PathBuf>> {
    files::list(directory, |name| is_or_becomes(name, CONFIGURATION))
}

/// Our plugin in a directory, as far as an agent has put it there: the link, and the versions.
///
/// # Errors
/// When the directory cannot be read.
pub fn own_plugins(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_link = |name: &str| {
        let to = fs::read_link(directory.join(name)).unwrap_or_default();
        is_or_becomes(name, plugin::NAME) && to.to_str().is_some_and(plugin::is_version)
    };
    let is_version = |name: &str| {
        let becomes = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
        plugin::is_version(becomes.unwrap_or(name))
    };
    // Who starts the plugin meanwhile finds it whole, or not at all.
    let mut own = files::list(directory, is_link)?;
    own.extend(files::list(directory, is_version)?);
    Ok(own)
}

fn is_or_becomes(name: &str, file: &str) -> bool {
    name == file || hidden(Path::new(file)) == Path::new(name)
}

/// Asks a plugin for its versions (CNI 1.1, section 2, VERSION).
async fn versions(plugin: &Path) -> io::Result<Vec<String>> {
    match tokio::time::timeout(ANSWER_TIME_MAX, ask_for_versions(plugin)).await {
        Ok(versions) => versions,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
    }
}

async fn ask_for_versions(plugin: &Path) -> io::Result<Vec<String>> {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let configuration = serde_json::json!({ "cniVersion": PLAIN }).to_string();
        // One that needs no configuration may be over already.
        let _ = stdin.write_all(configuration.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let versions = answer["supportedVersions"].as_array().into_iter().flatten();
    Ok(versions.filter_map(|version| version.as_str().map(str::to_owned)).collect())
}

/// Writes a file whole: a reader finds the old content or the new one, also after a loss of power.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = hidden(path);
    // Left by one that was killed: with its own mode.
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    io::Write::write_all(&mut file, content)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// In the same directory: containerd 1.6 does not notice files that come from another. Runtimes pass over names
/// that end in nothing they know.
fn hidden(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with a configuration is Ready, and then pods come.
    #[tokio::test(start_paused = true)]
    async fn the_configuration_waits_until_pods_can_be_made() {
        let host = tempfile::tempdir().unwrap();
        let file = host.path().join(CONFIGURATION);
        let directories =
            Directories { plugins: None, configurations: Some(host.path().to_owned()) };
        let install = Install::new(directories, Path::new("/run/podwire/agent.sock")).unwrap();
        let (engine, readiness) = watch::channel(Readiness::Starting);
        let problems = install.problems();
        let task = tokio::spawn(install.keep(readiness));
        for not_yet in [Readiness::Starting, Readiness::Not("no pod network".to_owned())] {
            engine.send_replace(not_yet);
            tokio::time::sleep(LOOK_EVERY * 2).await;
            assert!(!file.exists());
        }
        engine.send_replace(Readiness::Ready);
        tokio::time::sleep(LOOK_EVERY / 2).await;
        assert!(file.exists());
        engine.send_replace(Readiness::Not("for a moment".to_owned()));
        tokio::time::sleep(LOOK_EVERY).await;
        assert!(file.exists(), "a node that was Ready stays so");
        engine.send_replace(Readiness::Ready);
        fs::write(host.path().join("00-x.conf"), "").unwrap();
        fs::remove_file(&file).unwrap();
        tokio::time::sleep(LOOK_EVERY).await;
        assert!(file.exists());
        assert!(problems.borrow()[0].contains("00-x.conf"));
        task.abort();
    }
}
