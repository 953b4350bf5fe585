//! A room for a container runtime on a node: the node's network, and directories, processes and mounts of
//! its own. All of it goes when the room is dropped, whatever state the runtime is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command;
use crate::enclosure::Enclosure;
pub use crate::enclosure::Service;
use crate::node::Node;
use crate::wait::wait_until;

const END_TIME_MAX: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// Empty directories where runtimes keep things, but the node's own below `/run`. Namespaces of others are
/// let go, or they would live as long as the room. The shell stays: as the first process it waits for those
/// whose parents have ended.
const FURNISH: &str = "set -e
    mount --bind \"$2\" /mnt
    umount --lazy --recursive /run/netns
    for directory in /run /var/lib /dev/shm; do mount -t tmpfs -o mode=755 tmpfs $directory; done
    mkdir -p \"$2\" /run/netns /run/lock
    mount --bind /run/netns /run/netns
    mount --move /mnt \"$2\"
    : > \"$1\"
    sleep infinity
    :";

/// A room.
#[derive(Debug)]
pub struct Room {
    enclosure: Enclosure,
    /// The node that it is on.
    pub node: Arc<Node>,
}

impl Room {
    /// Makes one.
    ///
    /// # Errors
    /// When the rights are missing.
    pub fn new(node: &Arc<Node>) -> Result<Self> {
        let (run, ready) = (&node.directory, node.directory.join("room"));
        let enclosure = Enclosure::new(&node.namespace, true, FURNISH, &ready, &[run.as_os_str()])?;
        let room = Self { enclosure, node: Arc::clone(node) };
        fs::create_dir_all(room.networks())?;
        Ok(room)
    }

    /// Directory of the network configurations.
    pub fn networks(&self) -> PathBuf {
        self.node.directory.join("net.d")
    }

    /// Writes the configuration of a network.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_network(&self, list: &Value) -> Result<()> {
        let name = list["name"].as_str().context("name")?;
        Ok(fs::write(self.networks().join(format!("{name}.conflist")), list.to_string())?)
    }

    /// A program in the room, which is ended after a minute.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.enclosure.command(program.as_ref())
    }

    /// Runs a program in the room, given as words, and returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let program = words.next().context("a program")?;
        command::run(self.command(program).args(words))
    }

    /// Starts a program in the room that stays, its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, program: &str, arguments: &[&str], log: &Path) -> Result<Service> {
        self.enclosure.spawn(program, arguments, log)
    }

    /// Its mounts, as the kernel shows them.
    ///
    /// # Errors
    /// When it is gone.
    pub fn mounts(&self) -> Result<Vec<String>> {
        self.enclosure.mounts()
    }

    /// Names of the processes in the room.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processes(&self) -> Result<Vec<String>> {
        self.enclosure.processes()
    }

    /// Name for the control group of the room's containers.
    pub fn cgroup(&self) -> String {
        format!("{}-{}", self.node.run(), self.node.name)
    }

    /// That group and those below it, in all hierarchies, each before those below it.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let own = self.cgroup();
        cgroups(|name| name == own)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.enclosure.kill();
        let _ = wait_until("the end of the room", END_TIME_MAX, || remove_cgroups(&self.cgroups()));
    }
}

/// Groups with such names, and those below them, in all hierarchies, each before those below it.
pub fn cgroups(is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let below = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let is_wanted =
        |group: &PathBuf| group.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy()));
    let roots = below(Path::new(CGROUPS)).into_iter().chain([CGROUPS.into()]);
    let mut found: Vec<PathBuf> = roots.flat_map(|root| below(&root)).filter(is_wanted).collect();
    let mut next = 0;
    while let Some(group) = found.get(next) {
        let more = below(group);
        found.extend(more);
        next += 1;
    }
    found
}

/// Removes groups of processes that have ended.
///
/// # Errors
/// When a process still is in one.
pub fn remove_cgroups(groups: &[PathBuf]) -> Result<()> {
    for group in groups.iter().rev() {
        fs::remove_dir(group).with_context(|| format!("remove {}", group.display()))?;
    }
    Ok(())
}
