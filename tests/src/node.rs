//! A node: its namespace, its agent, and the runtime's side of CNI.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::cluster::{CLUSTER_CIDRS, Mode};
use crate::command::{self, Process};
use crate::fabric::Place;
use crate::namespace::Namespace;
use crate::run::Run;
use crate::wait::wait_until;

/// An agent serves within this time, on a busy machine too.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// It promises to end within 8 seconds after SIGTERM, as runtimes kill what takes longer.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Where an agent serves health and metrics.
pub const MONITOR_PORT: u16 = 9869;

/// Those of deploy/podwire.yaml and no others: what needs more must not go unnoticed.
const CAPABILITIES: [&str; 2] = ["--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_admin"];

/// Where the distribution has the plugins of the CNI project.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// A node.
#[derive(Debug)]
pub struct Node {
    agent: Mutex<Option<Process>>,
    /// Its network.
    pub namespace: Namespace,
    /// Name in the node file.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
    /// Its addresses among the pods, IPv4 first.
    pub gateways: [IpAddr; 2],
    /// Its pins.
    pub bpffs: PathBuf,
    /// Its state, socket and log.
    pub directory: PathBuf,
    nodes_file: PathBuf,
    mode: Mode,
    agent_binary: PathBuf,
    plugin_binary: PathBuf,
    run: String,
    keep: bool,
    listen: bool,
}

impl Node {
    pub(crate) fn new(
        run: &Run,
        namespace: Namespace,
        place: Place,
        mode: Mode,
        agent_binary: PathBuf,
        plugin_binary: PathBuf,
    ) -> Result<Self> {
        let short = format!("n{}", place.number);
        let directory = run.directory().join(&short);
        fs::create_dir_all(&directory)?;
        Ok(Self {
            agent: Mutex::new(None),
            namespace,
            name: format!("node{}", place.number),
            addresses: place.addresses(),
            gateways: place.gateways(),
            bpffs: run.bpffs().join(&short),
            directory,
            nodes_file: run.directory().join("nodes.toml"),
            mode,
            agent_binary,
            plugin_binary,
            run: run.name().to_owned(),
            keep: run.is_kept(),
            listen: false,
        })
    }

    pub(crate) fn listening(mut self) -> Self {
        self.listen = true;
        self
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// The agent's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// The command that runs its agent.
    pub fn agent_command(&self) -> Command {
        self.command_of_agent(&self.agent_binary)
    }

    fn command_of_agent(&self, binary: &Path) -> Command {
        let mut command = self.namespace.service("setpriv", !self.keep);
        command.args(CAPABILITIES).arg(binary);
        command
            .arg("run")
            .args(["--node-name", &self.name])
            .args(["--encapsulation", self.mode.name()]);
        command.arg("--nodes-file").arg(&self.nodes_file);
        command.arg("--socket").arg(self.socket()).arg("--bpffs").arg(&self.bpffs);
        command.arg("--state-dir").arg(&self.directory);
        if self.listen {
            command.args(["--listen", &format!("[::]:{MONITOR_PORT}")]);
        }
        command.args(CLUSTER_CIDRS.iter().flat_map(|cidr| ["--cluster-cidr", cidr]));
        command.stdin(Stdio::null());
        command
    }

    /// Another command of the agent's program, told where this node has what is the agent's own.
    pub fn agent_verb(&self, verb: &str) -> Command {
        let mut command = self.namespace.service(&self.agent_binary, true);
        command.arg(verb).arg("--socket").arg(self.socket());
        command.arg("--bpffs").arg(&self.bpffs).arg("--state-dir").arg(&self.directory);
        command.stdin(Stdio::null());
        command
    }

    /// Starts its agent.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_agent(&self) -> Result<()> {
        self.spawn_agent_with(&[])
    }

    /// As [`Self::spawn_agent`], with further arguments.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_agent_with(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.agent_command();
        command.args(arguments);
        self.spawn(command)
    }

    /// As [`Self::spawn_agent`], but of another build.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_agent_of(&self, binary: &Path) -> Result<()> {
        self.spawn(self.command_of_agent(binary))
    }

    fn spawn(&self, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("nsenter")?;
        *self.agent() = Some(Process::new(child));
        Ok(())
    }

    /// Waits until its agent answers and has nothing left to do.
    ///
    /// # Errors
    /// When it ends or takes too long, with its log.
    pub fn wait_for_agent(&self) -> Result<()> {
        let result = wait_until("the agent", START_TIME_MAX, || {
            if self.agent().as_mut().is_none_or(Process::has_ended) {
                return Ok(false);
            }
            ensure!(self.directory.join("plugin.json").exists(), "plugin.json is missing");
            let status = self.status()?;
            ensure!(status["settled"] == true, "not settled: {}", status["problems"]);
            Ok(true)
        });
        match result {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the agent of {} ended:\n{}", self.name, self.read_log()),
            Err(error) => Err(error.context(self.read_log())),
        }
    }

    /// Kills its agent with SIGKILL.
    pub fn kill_agent(&self) {
        *self.agent() = None;
    }

    /// Ends its agent with SIGTERM and waits until it is gone.
    ///
    /// # Errors
    /// When none runs, or it does not end.
    pub fn stop_agent(&self) -> Result<()> {
        let pid = Pid::from_raw(self.agent_pid()?.try_into()?);
        kill(pid, Signal::SIGTERM)?;
        wait_until("the end of the agent", STOP_TIME_MAX, || {
            ensure!(self.agent().as_mut().is_none_or(Process::has_ended), "it runs on");
            Ok(())
        })?;
        *self.agent() = None;
        Ok(())
    }

    /// The agent's process.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent_pid(&self) -> Result<u32> {
        self.agent().as_ref().and_then(Process::id).context("no agent runs")
    }

    /// What `podwire-agent status --output json` says.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.status_text(&["--output", "json"])?)?)
    }

    /// What `podwire-agent status` prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn status_text(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.agent_binary);
        command.arg("status").arg("--socket").arg(self.socket()).args(arguments);
        command::run(&mut command)
    }

    /// Packets under a counter.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        let counters = status["counters"].as_array().context("counters")?;
        let counter = counters.iter().find(|counter| counter["name"] == name);
        counter.and_then(|c| c["packets"].as_u64()).with_context(|| format!("no counter {name}"))
    }

    /// Calls the CNI plugin as a runtime does, and returns the result or the error document.
    ///
    /// # Errors
    /// When the plugin's output is none of the contract.
    pub fn cni(&self, call: &CniCall<'_>) -> Result<Result<Value, Value>> {
        self.cni_with(call, &self.cni_configuration())
    }

    /// As [`Self::cni`], with another configuration.
    ///
    /// # Errors
    /// When the plugin's output is none of the contract.
    pub fn cni_with(
        &self,
        call: &CniCall<'_>,
        configuration: &Value,
    ) -> Result<Result<Value, Value>> {
        self.cni_in(call, configuration, &[])
    }

    /// As [`Self::cni_with`], with other variables in the environment.
    ///
    /// # Errors
    /// When the plugin's output is none of the contract.
    pub fn cni_in(
        &self,
        call: &CniCall<'_>,
        configuration: &Value,
        environment: &[(&str, &str)],
    ) -> Result<Result<Value, Value>> {
        let mut command = self.cni_command(call);
        command.envs(environment.iter().copied());
        let output = command::feed(&mut command, &configuration.to_string())?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let document = if stdout.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&stdout).with_context(|| format!("plugin printed {stdout}"))?
        };
        if output.status.success() {
            return Ok(Ok(document));
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(document["code"].is_u64(), "plugin: {}: {stdout}{stderr}", output.status);
        Ok(Err(document))
    }

    /// The plugin's command, ready to be fed with [`Self::cni_configuration`].
    pub fn cni_command(&self, call: &CniCall<'_>) -> Command {
        with_call(self.namespace.command(&self.plugin_binary.to_string_lossy()), call)
    }

    /// As [`Self::cni_command`], with nothing between the caller and the plugin.
    pub fn bare_cni_command(&self, call: &CniCall<'_>) -> Command {
        with_call(self.namespace.program(&self.plugin_binary), call)
    }

    /// The network configuration.
    pub fn cni_configuration(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "podwire",
            "type": "podwire",
            "socket": self.socket(),
        })
    }

    /// A directory with our plugin and those of the CNI project.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn plugins(&self) -> Result<PathBuf> {
        let directory = self.directory.join("cni-bin");
        if !directory.exists() {
            fs::create_dir(&directory)?;
            let others = fs::read_dir(CNI_PLUGINS)?.flatten().map(|entry| entry.path());
            for plugin in others.chain([self.plugin_binary.clone()]) {
                let name = plugin.file_name().context("a plugin's name")?;
                symlink(&plugin, directory.join(name))?;
            }
        }
        Ok(directory)
    }

    /// `bpftool map dump` of one of its maps.
    ///
    /// # Errors
    /// When it fails.
    pub fn map(&self, name: &str) -> Result<Vec<Value>> {
        let pin = self.bpffs.join("maps").join(name);
        let dump =
            command::run(Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(pin))?;
        Ok(serde_json::from_str(&dump)?)
    }

    /// The log of its agent.
    pub fn read_log(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.keep
    }

    fn agent(&self) -> MutexGuard<'_, Option<Process>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.keep {
            if let Some(agent) = self.agent().as_mut() {
                agent.let_go();
            }
        } else if std::thread::panicking() {
            let status = self.status_text(&[]).unwrap_or_default();
            eprintln!(
                "-- {}: log\n{}-- {}: status\n{status}",
                self.name,
                self.read_log(),
                self.name
            );
        }
    }
}

fn with_call(mut command: Command, call: &CniCall<'_>) -> Command {
    command.env("CNI_COMMAND", call.command).env("CNI_CONTAINERID", call.container_id);
    command.env("CNI_NETNS", call.netns).env("CNI_IFNAME", "eth0").env("CNI_PATH", CNI_PLUGINS);
    command
}

/// A call of the CNI plugin.
#[derive(Clone, Copy, Debug)]
pub struct CniCall<'a> {
    /// `ADD`, `DEL`, `CHECK`, `STATUS`, `GC`, `VERSION`.
    pub command: &'a str,
    /// The container.
    pub container_id: &'a str,
    /// Path of its namespace.
    pub netns: &'a Path,
}
