//! `podwire-agent uninstall` takes everything off a node, and says so.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::wait::wait_until;

use super::snapshot::{self, Snapshot};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node with the two directories of a container runtime, in which others have files, too.
struct Host {
    node: Arc<Node>,
    plugins: PathBuf,
    configurations: PathBuf,
    before: Snapshot,
}

impl Host {
    fn new(node: &Arc<Node>) -> Result<Self> {
        let [plugins, configurations] = ["bin", "net.d"].map(|name| node.directory.join(name));
        for (directory, file) in [(&plugins, "bridge"), (&configurations, "87-bridge.conflist")] {
            fs::create_dir_all(directory)?;
            fs::write(directory.join(file), "theirs")?;
        }
        fs::write(node.log(), "")?;
        // Values below /proc/sys stay, and the kernel adds addresses by this one.
        node.namespace.run("sysctl --quiet --write net.ipv6.conf.all.forwarding=1")?;
        let before = snapshot::bare(node)?;
        Ok(Self { node: Arc::clone(node), plugins, configurations, before })
    }

    /// Starts the agent, and waits until a runtime would start pods.
    fn install(&self) -> Result<()> {
        let [bin, net] = self.directories();
        self.node.spawn_agent_with(&["--cni-bin-dir", &bin, "--cni-conf-dir", &net])?;
        self.node.wait_for_agent()?;
        wait_until("the configuration", PATIENCE, || {
            ensure!(self.configurations.join("05-podwire.conflist").exists(), "not there");
            Ok(())
        })
    }

    fn directories(&self) -> [String; 2] {
        [&self.plugins, &self.configurations].map(|path| path.to_string_lossy().into_owned())
    }

    fn command(&self, options: &[&str]) -> Command {
        let [bin, net] = self.directories();
        let mut command = self.node.agent_verb("uninstall");
        command.args(["--cni-bin-dir", &bin, "--cni-conf-dir", &net]).args(options);
        command
    }

    fn uninstall(&self, options: &[&str]) -> Result<String> {
        command::run(&mut self.command(options))
    }

    /// Uninstalls where that is refused, and nothing may change.
    fn refused(&self, why: &[&str]) -> Result<()> {
        let before = snapshot::bare(&self.node)?;
        let error = self.uninstall(&[]).err().context("it was done")?.to_string();
        for words in why {
            ensure!(error.contains(words), "{words} is not in: {error}");
        }
        snapshot::ensure_same(&before, &snapshot::bare(&self.node)?)
    }

    /// Whether the node is as it was before there was an agent.
    fn ensure_clean(&self) -> Result<()> {
        snapshot::ensure_same(&self.before, &snapshot::bare(&self.node)?)
    }

    /// As the runtime calls the plugin that is installed.
    fn delete_by_installed_plugin(&self, pod: &Pod) -> Result<()> {
        let plugin = self.plugins.join("podwire");
        let mut plugin = self.node.namespace.command(&plugin.to_string_lossy());
        plugin.env("CNI_COMMAND", "DEL").env("CNI_CONTAINERID", &pod.container_id);
        plugin.env("CNI_NETNS", pod.netns()).env("CNI_IFNAME", "eth0");
        plugin.env("CNI_PATH", &self.plugins);
        let output = command::feed(&mut plugin, &self.node.cni_configuration().to_string())?;
        command::checked(&plugin, &output).map(drop)
    }
}

#[test]
fn nothing_is_left_and_nothing_of_others_is_touched() {
    Cluster::builder(Mode::Vxlan).nodes(2).without_agents().test(|cluster| {
        let host = Host::new(cluster.node(1))?;
        let node = &host.node;
        host.install()?;
        let pods: Vec<Pod> = (0..2).map(|_| node.pod()).collect::<Result<_>>()?;
        host.refused(&["an agent", "end it first"])?;
        node.stop_agent()?;
        host.refused(&["2 interfaces of pods", "--cut-pods"])?;
        probe::ping(&pods[0].namespace, pods[1].addresses[0])?;

        let kept = snapshot::bare(node)?;
        let planned = host.uninstall(&["--dry-run"])?;
        ensure!(planned.contains("would refuse") && planned.contains("--cut-pods"), "{planned}");
        snapshot::ensure_same(&kept, &snapshot::bare(node)?)?;
        let said = host.uninstall(&["--cut-pods"])?;
        let removed = |line: &str| line.strip_prefix("removed ").map(str::to_owned);
        for line in planned.lines().filter_map(|line| line.strip_prefix("would remove ")) {
            ensure!(said.lines().filter_map(removed).any(|it| it == line), "{line}: {said}");
        }
        let names = [
            "05-podwire.conflist",
            &pods[0].host_ifname()?,
            &pods[1].host_ifname()?,
            "podwire0",
            "podwire-vxlan",
            "table inet podwire",
            "pins",
        ];
        for name in names {
            ensure!(said.contains(name), "{name} is not in: {said}");
        }

        // The runtime has yet to delete the pods.
        ensure!(said.contains("kept") && host.plugins.join("podwire").exists(), "{said}");
        pods.iter().try_for_each(|pod| host.delete_by_installed_plugin(pod))?;
        let said = host.uninstall(&[])?;
        ensure!(said.contains("the plugin"), "{said}");
        host.ensure_clean()?;
        let said = host.uninstall(&[])?;
        ensure!(!said.contains("removed"), "{said}");

        // And back again.
        host.install()?;
        let pod = node.pod()?;
        probe::ping(&node.namespace, pod.addresses[0])?;
        pod.delete()?;
        node.stop_agent()?;
        host.uninstall(&[]).map(drop)?;
        host.ensure_clean()
    });
}

#[test]
fn an_uninstall_that_is_killed_is_taken_up() {
    Cluster::builder(Mode::Vxlan).nodes(2).without_agents().test(|cluster| {
        let host = Host::new(cluster.node(1))?;
        for step in ["the network configuration", "the pod's interface", "pins", "the device"] {
            host.install()?;
            let pod = host.node.pod()?;
            host.node.kill_agent();
            let mut command = host.command(&["--cut-pods"]);
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let said = BufReader::new(child.stdout.take().context("its output")?).lines();
            let is_step = |line: &String| line.contains(step);
            let reached = said.map_while(Result::ok).any(|line| is_step(&line));
            child.kill()?;
            child.wait()?;
            ensure!(reached, "{step}: not reached");
            host.uninstall(&["--cut-pods"]).with_context(|| step.to_owned())?;
            host.delete_by_installed_plugin(&pod).with_context(|| step.to_owned())?;
            host.uninstall(&[])?;
            host.ensure_clean().with_context(|| step.to_owned())?;
        }
        Ok(())
    });
}

/// It waits for a plugin that is at work, and for no longer than that.
#[test]
fn a_plugin_that_is_at_work_ends_first() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let host = Host::new(cluster.node(1))?;
        host.install()?;
        host.node.stop_agent()?;
        let file = host.node.directory.join("locks/7f");
        let lock = fs::File::open(&file)?;
        lock.lock()?;
        let mut child = host.command(&[]).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("its output")?).lines();
        let first = said.next().context("no line")??;
        ensure!(first.contains("05-podwire.conflist"), "{first}");
        wait_until("an uninstall that wants the lock", PATIENCE, || {
            let open = fs::read_dir(format!("/proc/{}/fd", child.id()))?.flatten();
            let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            ensure!(open.any(|path| path == file), "it does not");
            Ok(())
        })?;
        ensure!(host.node.namespace.run("ip link show podwire0").is_ok(), "it did not wait");
        // It has made a pod meanwhile.
        host.node.namespace.ip("link add pwaaaaaaaaaaaaa type veth peer name late")?;
        drop(lock);
        ensure!(!child.wait()?.success(), "the pod's network was cut");
        ensure!(said.next().is_none(), "something else was removed");
        host.node.namespace.ip("link delete pwaaaaaaaaaaaaa")?;
        let said = host.uninstall(&[])?;
        ensure!(said.contains("podwire0"), "{said}");
        host.ensure_clean()
    });
}

/// A host whose pins cannot be seen is not clean.
#[test]
fn what_cannot_be_looked_at_is_no_success() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let host = Host::new(cluster.node(1))?;
        let nowhere = host.node.directory.join("nowhere");
        let [bin, net] = host.directories();
        let mut command = host.node.namespace.service(binaries::agent()?, true);
        command.args(["uninstall", "--cni-bin-dir", &bin, "--cni-conf-dir", &net, "--bpffs"]);
        let output = command::output(command.arg(&nowhere))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && error.contains("no BPF filesystem"), "{error}");
        Ok(())
    });
}
