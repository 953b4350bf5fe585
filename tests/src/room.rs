//! A room for a container runtime on a node: the node's network, and directories, processes and mounts of
//! its own. All of it goes when the room is dropped, whatever state the runtime is in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{self, Process};
use crate::node::Node;
use crate::wait::wait_until;

const START_TIME_MAX: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// Empty directories where runtimes keep things, but the node's own below `/run`. Namespaces of others are
/// let go, or they would live as long as the room. The shell stays: as the first process it waits for those
/// whose parents have ended.
const FURNISH: &str = "set -e
    mount --bind \"$1\" /mnt
    umount --lazy --recursive /run/netns
    for directory in /run /var/lib /dev/shm; do mount -t tmpfs -o mode=755 tmpfs $directory; done
    mkdir -p \"$1\" /run/netns /run/lock
    mount --bind /run/netns /run/netns
    mount --move /mnt \"$1\"
    : > \"$2\"
    sleep infinity
    :";

/// A room.
#[derive(Debug)]
pub struct Room {
    // Its end ends every process in the room, as that is the first one's parent.
    _holder: Process,
    first: u32,
    /// The node that it is on.
    pub node: Arc<Node>,
}

impl Room {
    /// Makes one.
    ///
    /// # Errors
    /// When the rights are missing.
    pub fn new(node: &Arc<Node>) -> Result<Self> {
        let (run, ready) = (node.directory.clone(), node.directory.join("room"));
        let mut unshare = node.namespace.service("unshare", true);
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["--propagation", "private", "sh", "-c", FURNISH, "sh"]);
        let holder = Process::new(unshare.arg(run).arg(&ready).spawn().context("nsenter")?);
        wait_until("the room", START_TIME_MAX, || {
            ensure!(ready.exists(), "it is not furnished");
            Ok(())
        })?;
        let first = child_of(holder.id().context("unshare")?)?;
        let room = Self { _holder: holder, first, node: Arc::clone(node) };
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
        let mut command = command::limited("nsenter");
        command.args(self.way_in()).arg(program.as_ref());
        command
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
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("nsenter");
        command.args(self.way_in()).arg(program).args(arguments);
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("nsenter")?;
        Ok(Service(Process::new(child)))
    }

    /// Its mounts, as the kernel shows them.
    ///
    /// # Errors
    /// When it is gone.
    pub fn mounts(&self) -> Result<Vec<String>> {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.first))?;
        let second = |line: &str| line.split(' ').nth(1).map(str::to_owned);
        Ok(mounts.lines().filter_map(second).collect())
    }

    /// Names of the processes in the room.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processes(&self) -> Result<Vec<String>> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.first))?;
        let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let inside =
            all.filter(|process| fs::read_link(process.join("ns/pid")).ok() == Some(own.clone()));
        Ok(inside.filter_map(|process| fs::read_to_string(process.join("comm")).ok()).collect())
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

    fn way_in(&self) -> [String; 5] {
        ["--target", &self.first.to_string(), "--mount", "--pid", "--net"].map(str::to_owned)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.first.cast_signed()), Signal::SIGKILL);
        let _ =
            wait_until("the end of the room", START_TIME_MAX, || remove_cgroups(&self.cgroups()));
    }
}

/// Groups with such names, and those below them, in all hierarchies, each before those below it.
pub(crate) fn cgroups(is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
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
pub(crate) fn remove_cgroups(groups: &[PathBuf]) -> Result<()> {
    for group in groups.iter().rev() {
        fs::remove_dir(group).with_context(|| format!("remove {}", group.display()))?;
    }
    Ok(())
}

/// A program that runs in a room. It is killed when dropped.
#[derive(Debug)]
pub struct Service(Process);

impl Service {
    /// Ends it with a signal and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        let id = child_of(self.0.id().context("nsenter")?)?;
        kill(Pid::from_raw(id.cast_signed()), signal)?;
        wait_until("its end", START_TIME_MAX, || {
            ensure!(self.0.has_ended(), "process {id} runs on");
            Ok(())
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.has_ended()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let child = self.0.id().and_then(|id| child_of(id).ok());
        if let Some(id) = child {
            let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

/// The one child of a program that forks once and waits.
fn child_of(parent: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next();
    Ok(first.with_context(|| format!("process {parent} has no child"))?.parse()?)
}
