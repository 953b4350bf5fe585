//! A node: a machine made of namespaces, with a container runtime, a kubelet and kube-proxy.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::command;
use harness::enclosure::{Enclosure, Service};
use harness::fabric::{Fabric, Layout, Place};
use harness::namespace::Namespace;
use harness::node_map::NodeMap;
use harness::room::{cgroups, remove_cgroups};
use harness::run::Run;
use harness::wait::wait_until;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::control::tail;

const END_TIME_MAX: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// Where the distribution has the plugins of the CNI project, and where a node has its plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";
pub(crate) const PLUGINS: &str = "opt/cni/bin";
pub(crate) const NETWORKS: &str = "etc/cni/net.d";

/// The agent's pins.
const BPFFS: &str = "sys/fs/bpf/podwire";

/// Where the kubelet has the logs of pods, and how the names of the system's begin.
const POD_LOGS: &str = "var/log/pods";
const SYSTEM: &str = "kube-system_";

/// Makes a machine of the namespaces: directories, devices of its own network, groups of processes, pins.
/// The kubelet writes settings of the whole machine: it gets files of its own in their place.
const FURNISH: &str = "set -e
    ready=$1 directory=$2 name=$3
    hostname \"$name\"
    mount --bind \"$directory\" /mnt
    umount --lazy --recursive /run/netns
    for place in /run /var/lib /var/log /dev/shm; do mount -t tmpfs -o mode=755 tmpfs $place; done
    chmod 1777 /dev/shm
    mkdir -p \"$directory\" /run/netns /run/lock /run/groups /run/sysctl /var/log/pods
    mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/containers
    mount --move /mnt \"$directory\"
    for place in etc opt; do
        mkdir -p /run/over/$place/upper /run/over/$place/work
        over=lowerdir=/$place,upperdir=/run/over/$place/upper,workdir=/run/over/$place/work
        mount -t overlay -o $over overlay /$place
    done
    # What the machine has there is not the node's.
    for place in /etc/cni /etc/kubernetes /etc/containerd /opt/cni; do
        mkdir -p $place
        mount -t tmpfs -o mode=755 tmpfs $place
    done
    mkdir -p /etc/cni/net.d /opt/cni/bin
    mount --rbind /sys/fs/cgroup /run/groups
    mount -t sysfs sysfs /sys
    mount --rbind /run/groups /sys/fs/cgroup
    umount --lazy --recursive /run/groups
    mount -t bpf -o mode=700 bpf /sys/fs/bpf
    for name in kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom \\
        kernel/keys/root_maxkeys kernel/keys/root_maxbytes
    do
        copy=/run/sysctl/${name##*/}
        cat /proc/sys/$name > $copy
        mount --bind $copy /proc/sys/$name
    done
    mount --make-rshared /
    : > \"$ready\"
    sleep infinity
    :";

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    services: Vec<(&'static str, Service)>,
    pub(crate) enclosure: Enclosure,
    /// Its network.
    pub(crate) namespace: Namespace,
    /// Name in the cluster.
    pub(crate) name: String,
    /// Its addresses, IPv4 first.
    pub(crate) addresses: [String; 2],
    /// Its group of processes, above those of its pods.
    pub(crate) group: String,
    /// Its files, the same inside and outside.
    pub(crate) directory: PathBuf,
    keep: bool,
}

impl Node {
    /// Makes the machine, without any service.
    pub(crate) fn new(run: &Run, fabric: &Fabric, number: u8) -> Result<Self> {
        let place = Place::new(number, Layout::OneLan);
        let name = format!("node{number}");
        let group = format!("{}-{name}", run.name());
        let namespace = Namespace::new(&group, run.is_kept())?;
        fabric.add_node(&namespace, place)?;
        // A machine that starts again has the MAC that it had: others find it at once, also by IPv6, where nobody
        // tells them of another one.
        namespace.ip(&format!("link set eth0 address 02:00:00:00:01:{number:02x}"))?;
        let directory = run.directory().join(&name);
        fs::create_dir_all(&directory)?;
        make_groups(&group)?;
        let ready = directory.join("furnished");
        // Of a node before, where it starts again.
        let _ = fs::remove_file(&ready);
        let arguments: [&OsStr; 2] = [directory.as_ref(), name.as_ref()];
        let keep = run.is_kept();
        let enclosure = Enclosure::new(&namespace, !keep, FURNISH, &ready, &arguments)?;
        let addresses = place.addresses().map(|address| address.to_string());
        let services = Vec::new();
        let node = Self { services, enclosure, namespace, name, addresses, group, directory, keep };
        for plugin in fs::read_dir(CNI_PLUGINS).context("containernetworking-plugins")? {
            let path = plugin?.path();
            symlink(&path, node.inside(PLUGINS).join(path.file_name().context("a plugin")?))?;
        }
        Ok(node)
    }

    /// Puts a plugin in the place of the distribution's, as a file that containers see, too.
    pub(crate) fn give_plugin(&self, program: &Path) -> Result<()> {
        let place = self.inside(PLUGINS).join(program.file_name().context("a plugin")?);
        fs::remove_file(&place).with_context(|| place.display().to_string())?;
        fs::copy(program, &place).with_context(|| place.display().to_string())?;
        Ok(())
    }

    /// A path on the node, as the machine reaches it.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.enclosure.first())).join(path)
    }

    /// What its programs know of other nodes.
    pub(crate) fn node_map(&self) -> Result<NodeMap> {
        NodeMap::open(&self.inside(BPFFS))
    }

    /// A file of its directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts a service, with its log in the node's directory.
    pub(crate) fn spawn<A: AsRef<OsStr>>(
        &mut self,
        name: &'static str,
        program: &Path,
        flags: &[A],
    ) -> Result<()> {
        ensure!(program.exists(), "{} is missing", program.display());
        let service = self.enclosure.spawn(program, flags, &self.log(name))?;
        self.services.push((name, service));
        Ok(())
    }

    /// Ends a service with a signal.
    pub(crate) fn end(&mut self, name: &str, signal: Signal) -> Result<()> {
        let at = self.services.iter().position(|(service, _)| *service == name);
        let (_, service) = self.services.remove(at.with_context(|| format!("no {name} runs"))?);
        service.end(signal)
    }

    /// Runs a program, given as words, and returns its standard output.
    pub(crate) fn run(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let program = words.next().context("a program")?;
        command::run(self.enclosure.command(program).args(words))
    }

    /// Runs a program and reads the JSON that it prints.
    pub(crate) fn json(&self, words: &str) -> Result<Value> {
        let text = self.run(words)?;
        serde_json::from_str(&text).with_context(|| format!("{words} printed {text}"))
    }

    /// Copies what the pods of the system have said, each container's last run and the one before.
    pub(crate) fn copy_pod_logs(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        for pod in entries(&self.inside(POD_LOGS)) {
            let name = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for container in entries(&pod).filter(|_| name.starts_with(SYSTEM)) {
                for log in entries(&container) {
                    let (container, log_name) = (container.file_name(), log.file_name());
                    let parts = [container, log_name]
                        .map(|part| part.unwrap_or_default().to_string_lossy());
                    fs::copy(&log, to.join(format!("{name}-{}", parts.join("-"))))?;
                }
            }
        }
        Ok(())
    }

    /// Waits for something; the end of a service is an error at once.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        timeout: Duration,
        mut check: impl FnMut(&Self) -> Result<()>,
    ) -> Result<()> {
        let ended = wait_until(what, timeout, || {
            for (name, service) in &mut self.services {
                if service.has_ended() {
                    return Ok(Some(*name));
                }
            }
            check(self).map(|()| None)
        })
        .with_context(|| self.name.clone())?;
        match ended {
            None => Ok(()),
            Some(name) => bail!("{name} of {} has ended:\n{}", self.name, self.tail(name)),
        }
    }

    /// The last lines of a service's log.
    pub(crate) fn tail(&self, service: &str) -> String {
        tail(&fs::read_to_string(self.log(service)).unwrap_or_default())
    }

    fn log(&self, service: &str) -> PathBuf {
        self.file(&format!("{service}.log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.keep {
            self.services.iter_mut().for_each(|(_, service)| service.let_go());
            return self.enclosure.let_go();
        }
        self.services.clear();
        self.enclosure.kill();
        let group = self.group.clone();
        let groups = || cgroups(|name| name == group);
        let _ = wait_until("the end of the node", END_TIME_MAX, || remove_cgroups(&groups()));
    }
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Makes the node's group in every hierarchy. In the first version, groups have processors and memory only
/// when they are written; in the second, controllers only when the group above hands them down.
fn make_groups(group: &str) -> Result<()> {
    let root = Path::new(CGROUPS);
    let hierarchies = if root.join("cgroup.controllers").exists() {
        vec![root.to_owned()]
    } else {
        let entries = fs::read_dir(root).context(CGROUPS)?.flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    for hierarchy in hierarchies {
        let own = hierarchy.join(group);
        fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.join(file).exists() {
                fs::write(own.join(file), fs::read_to_string(hierarchy.join(file))?)?;
            }
        }
        for directory in [&hierarchy, &own] {
            let controllers = fs::read_to_string(directory.join("cgroup.controllers"));
            for controller in controllers.unwrap_or_default().split_whitespace() {
                // What cannot be handed down, the kubelet names if it needs it.
                let _ =
                    fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    Ok(())
}
