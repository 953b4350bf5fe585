//! What of Podwire is on a node, and how each goes.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{UninstallError, io_error};
use crate::install::{own_configurations, own_plugins};
use crate::kernel::live::preflight::bpf_filesystem;
use crate::kernel::live::{self, Namespace};
use crate::kernel::{KernelError, NFT_TABLE, Neighbour, Raised};
use crate::presence;
use crate::settings::Surroundings;
use crate::store::{self, ATTACHMENTS};

/// Something of ours; its text is what people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remnant {
    /// The host side of a pod's interface.
    Pod { name: String, alias: String },
    /// A device of the agent.
    Device(String),
    /// A neighbour that the kernel keeps fresh for us.
    Neighbour(Neighbour),
    /// An uplink that was raised for BIG TCP.
    Uplink { name: String, raised: Raised },
    /// The nftables table.
    Table,
    /// A file of the host.
    File { what: &'static str, path: PathBuf },
    /// Files and directories below one of ours, in the order in which they can go.
    Files { what: &'static str, root: PathBuf, paths: Vec<PathBuf> },
}

impl fmt::Display for Remnant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { name, alias } => write!(f, "the pod's interface {name} ({alias})"),
            Self::Device(name) => write!(f, "the device {name}"),
            Self::Neighbour(Neighbour { device, address }) => {
                write!(f, "the neighbour {address} on {device}")
            }
            Self::Uplink { name, .. } => {
                write!(f, "the size of packets that --big-tcp on gave to {name}")
            }
            Self::Table => write!(f, "the nftables table inet {NFT_TABLE}"),
            Self::File { what, path } => write!(f, "the {what} {}", path.display()),
            Self::Files { what, root, paths } => {
                write!(f, "{what} in {} ({})", root.display(), paths.len())
            }
        }
    }
}

impl Remnant {
    /// Removes it. What is gone already is no error.
    pub(super) async fn remove(&self, namespace: &Namespace) -> Result<(), String> {
        let text = |error: KernelError| error.to_string();
        match self {
            Self::Pod { name, .. } | Self::Device(name) => {
                namespace.remove_interface(name).await.map_err(text)
            }
            Self::Neighbour(neighbour) => namespace.remove_neighbour(neighbour).await.map_err(text),
            Self::Uplink { name, raised } => namespace.put_back(name, raised).await.map_err(text),
            Self::Table => namespace.remove_table().await.map_err(text),
            Self::File { path, .. } => remove(path),
            Self::Files { root, paths, .. } => {
                paths.iter().try_for_each(|path| remove(path))?;
                remove(root)
            }
        }
    }
}

/// A directory stays where it has files of others, or something is mounted on it.
fn remove(path: &Path) -> Result<(), String> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let removed = if is_directory { fs::remove_dir(path) } else { fs::remove_file(path) };
    match removed.map_err(|error| (error.kind(), error)) {
        Ok(()) | Err((ErrorKind::NotFound, _)) => Ok(()),
        Err((ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy, _)) if is_directory => Ok(()),
        Err((_, error)) => Err(format!("cannot remove {}: {error}", path.display())),
    }
}

/// What makes runtimes call the plugin.
pub(super) fn configurations(places: &Surroundings) -> Result<Vec<Remnant>, UninstallError> {
    let Some(directory) = &places.install.configurations else { return Ok(Vec::new()) };
    let found = own_configurations(directory);
    let found = found.map_err(io_error(format!("cannot look into {}", directory.display())))?;
    let remnant = |path| Remnant::File { what: "network configuration", path };
    Ok(found.into_iter().map(remnant).collect())
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// In the order in which they can go.
    pub(super) remnants: Vec<Remnant>,
    /// What stays, and why.
    pub(super) notes: Vec<String>,
    /// What could not be looked at.
    pub(super) faults: Vec<String>,
}

/// Looks for everything but the configuration.
pub(super) async fn survey(
    namespace: &Namespace,
    places: &Surroundings,
) -> Result<Survey, KernelError> {
    let residue = namespace.residue().await?;
    let mut found = Survey::default();
    let state = found.take(store::own_files(&places.state_dir), &places.state_dir);
    let is_attachment = |path: &PathBuf| path.parent().is_some_and(|at| at.ends_with(ATTACHMENTS));
    let has_pods = !residue.pods.is_empty() || state.iter().any(is_attachment);
    let pods = residue.pods.into_iter().map(|(name, alias)| Remnant::Pod { name, alias });
    found.remnants.extend(pods);
    let unseen =
        bpf_filesystem(&places.bpffs).err().map(|fault| KernelError::from(fault).to_string());
    found.faults.extend(unseen);
    let pins = found.take(live::own_pins(&places.bpffs), &places.bpffs);
    found.files("the pins", &places.bpffs, pins);
    match namespace.has_table().await {
        Ok(is_there) => found.remnants.extend(is_there.then_some(Remnant::Table)),
        Err(error) => found.faults.push(error.to_string()),
    }
    let raised = namespace.still_raised(store::raised(&places.state_dir)).await?;
    let uplink = |(name, raised)| Remnant::Uplink { name, raised };
    found.remnants.extend(raised.into_iter().map(uplink));
    found.remnants.extend(residue.neighbours.into_iter().map(Remnant::Neighbour));
    found.remnants.extend(residue.devices.into_iter().map(Remnant::Device));
    if let Some(directory) = &places.install.plugins {
        let plugins = found.take(own_plugins(directory), directory);
        found.plugins(plugins, has_pods);
    }
    let beside = places.socket.parent().unwrap_or(Path::new("/"));
    let presence = found.take(presence::own_files(&places.socket), beside);
    found.files("the agent's files", beside, presence);
    // Last: as long as they are there, it is known that there were pods.
    found.files("the agent's state", &places.state_dir, state);
    Ok(found)
}

impl Survey {
    fn take(&mut self, listed: io::Result<Vec<PathBuf>>, directory: &Path) -> Vec<PathBuf> {
        listed.unwrap_or_else(|error| {
            self.faults.push(format!("cannot look into {}: {error}", directory.display()));
            Vec::new()
        })
    }

    fn files(&mut self, what: &'static str, root: &Path, paths: Vec<PathBuf>) {
        if !paths.is_empty() {
            self.remnants.push(Remnant::Files { what, root: root.to_owned(), paths });
        }
    }

    /// Runtimes that remember by what a pod was made (CRI-O, podman) want to delete it by the same plugin.
    fn plugins(&mut self, paths: Vec<PathBuf>, has_pods: bool) {
        match paths.first() {
            Some(link) if has_pods => self.notes.push(format!(
                "kept {}: there are container runtimes that delete a pod by the plugin that has made it; uninstall \
                 again when the pods are gone",
                link.display()
            )),
            Some(_) | None => {
                let remnant = |path| Remnant::File { what: "plugin", path };
                self.remnants.extend(paths.into_iter().map(remnant));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(remnants: &[Remnant]) -> Vec<String> {
        remnants.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_plugin_stays_for_pods_that_the_runtime_has_yet_to_delete() {
        let paths =
            || vec![PathBuf::from("/b/podwire"), PathBuf::from("/b/podwire-1-0a0b0c0d0e0f")];
        let mut found = Survey::default();
        found.plugins(paths(), true);
        assert!(found.remnants.is_empty() && found.notes[0].contains("/b/podwire"), "{found:?}");
        let mut found = Survey::default();
        found.plugins(paths(), false);
        assert_eq!(
            names(&found.remnants),
            ["the plugin /b/podwire", "the plugin /b/podwire-1-0a0b0c0d0e0f"]
        );
        found.plugins(Vec::new(), true);
        assert!(found.notes.is_empty());
    }

    #[test]
    fn files_of_others_keep_their_directory() {
        let root = tempfile::tempdir().unwrap();
        let ours = root.path().join("ours");
        fs::create_dir(&ours).unwrap();
        fs::write(ours.join("theirs"), "").unwrap();
        remove(&ours).unwrap();
        assert!(ours.join("theirs").exists());
        remove(&ours.join("theirs")).unwrap();
        remove(&ours.join("theirs")).unwrap();
        remove(&ours).unwrap();
        assert!(!ours.exists());
        let error = remove(Path::new("/proc/version")).unwrap_err();
        assert!(error.contains("/proc/version"), "{error}");
    }
}
