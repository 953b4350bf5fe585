//! `podwire-agent uninstall`: takes everything of Podwire off this node, with no agent and no API server.
//!
//! The network configuration goes first, so that no pod comes any more. Then plugins that are at work end, pods'
//! interfaces and programs go, and the files that say what is there come last: a call that was killed is taken
//! up by the next one.

mod remnant;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_shim::grace::{self, Expedited};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::time::{Instant, sleep};

use self::remnant::{Remnant, configurations, survey};
use crate::kernel::KernelError;
use crate::kernel::live::preflight::capabilities;
use crate::kernel::live::{Namespace, Residue};
use crate::presence;
use crate::settings::{Options, SettingsError, Surroundings};
use crate::store::{LOCK_FILE, StoreError, lock_directory, lock_pins};

/// Where runtimes look unless told otherwise.
const PLUGINS: &str = "/opt/cni/bin";
const CONFIGURATIONS: &str = "/etc/cni/net.d";

/// A plugin that is at work has this long to end.
const PLUGINS_TIME_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pods that a refusal names.
const NAMED_MAX: usize = 5;

/// Options of `uninstall`. The places are those of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct UninstallOptions {
    /// Also where pods have their network from Podwire: they lose it
    #[arg(long)]
    cut_pods: bool,
    /// Only says what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Unix socket of the agent [default: /run/podwire/agent.sock]
    #[arg(long, env = "PODWIRE_SOCKET", value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Directory of the pins [default: /sys/fs/bpf/podwire]
    #[arg(long, env = "PODWIRE_BPFFS", value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// Directory of attachments and the lock [default: /run/podwire]
    #[arg(long, env = "PODWIRE_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Directory of the host's CNI plugins [default: /opt/cni/bin]
    #[arg(long, env = "PODWIRE_CNI_BIN_DIR", value_name = "DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Directory of the host's network configurations [default: /etc/cni/net.d]
    #[arg(long, env = "PODWIRE_CNI_CONF_DIR", value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// The TOML file that `run` was given
    #[arg(long, env = "PODWIRE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why not everything of Podwire is gone.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// An option makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The kernel refused, or rights are missing.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A lock cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An agent would put everything back.
    #[error(
        "an agent or another uninstall is at work with {}: end it first (in a cluster: `kubectl delete` the \
         DaemonSet, or keep it off this node)",
        _0.display()
    )]
    Busy(PathBuf),
    /// Pods would lose their network.
    #[error(
        "{count} interfaces of pods have their network from Podwire ({named}): remove these pods first (`kubectl \
         drain` does most of it), or let them lose their network with --cut-pods"
    )]
    Pods {
        /// How many.
        count: usize,
        /// Some of them.
        named: String,
    },
    /// A plugin does not end.
    #[error(
        "a plugin has been at work for {} s: `fuser {}` shows which; end it, and uninstall again",
        PLUGINS_TIME_MAX.as_secs(),
        _0.display()
    )]
    Plugin(PathBuf),
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Everything else is gone.
    #[error("not everything could be looked at or removed:\n  {}", _0.join("\n  "))]
    Left(Vec<String>),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> UninstallError {
    move |source| UninstallError::Io { what: what.into(), source }
}

type Result<T> = std::result::Result<T, UninstallError>;

impl UninstallOptions {
    fn places(&self) -> Result<Surroundings> {
        let given = Options {
            socket: self.socket.clone(),
            bpffs: self.bpffs.clone(),
            state_dir: self.state_dir.clone(),
            cni_bin_dir: self.cni_bin_dir.clone(),
            cni_conf_dir: self.cni_conf_dir.clone(),
            config: self.config.clone(),
            ..Options::default()
        };
        let mut places = given.surroundings()?;
        places.install.plugins.get_or_insert_with(|| PLUGINS.into());
        places.install.configurations.get_or_insert_with(|| CONFIGURATIONS.into());
        Ok(places)
    }
}

/// Removes what there is, and says so in `out` at once.
///
/// # Errors
/// Before anything is removed: when an agent runs, when pods would lose their network, or rights are missing.
/// At the end: when something could not be looked at or removed.
pub async fn uninstall(options: &UninstallOptions, out: &mut impl Write) -> Result<()> {
    let places = options.places()?;
    capabilities().map_err(KernelError::from)?;
    let namespace = Namespace::open()?;
    let agents = lock_out_agents(&places);
    if options.dry_run {
        let mut found = survey(&namespace, &places).await?;
        found.remnants.splice(0..0, configurations(&places)?);
        for remnant in &found.remnants {
            say(out, &format!("would remove {remnant}"));
        }
        let refusal = agents.map(drop).and(refuse_pods(&namespace, options).await);
        if let Err(refusal) = refusal {
            say(out, &format!("but would refuse: {refusal}"));
        }
        return end(&found.notes, found.faults, &places, out);
    }
    let _agents = agents?;
    refuse_pods(&namespace, options).await?;
    let mut faults = remove_all(configurations(&places)?, &namespace, out).await;
    let _plugins = wait_for_plugins(&places.socket).await?;
    // One that was at work may have made a pod.
    refuse_pods(&namespace, options).await?;
    let found = survey(&namespace, &places).await?;
    faults.extend(found.faults);
    {
        let _expedited = Expedited::begin(true);
        faults.extend(remove_all(found.remnants, &namespace, out).await);
    }
    // Of a plugin that was killed.
    let _ = grace::end_abandoned();
    end(&found.notes, faults, &places, out)
}

/// No pod shall lose its network unless that is wanted.
async fn refuse_pods(namespace: &Namespace, options: &UninstallOptions) -> Result<()> {
    let Residue { pods, .. } = namespace.residue().await?;
    if pods.is_empty() || options.cut_pods {
        return Ok(());
    }
    Err(UninstallError::Pods { count: pods.len(), named: some_of(&pods) })
}

/// Removes each, and says what failed: that is no reason to keep the rest.
async fn remove_all(
    remnants: Vec<Remnant>,
    namespace: &Namespace,
    out: &mut impl Write,
) -> Vec<String> {
    let mut faults = Vec::new();
    for remnant in remnants {
        match remnant.remove(namespace).await {
            Ok(()) => say(out, &format!("removed {remnant}")),
            Err(error) => faults.push(error),
        }
    }
    faults
}

/// A reader who goes away is no reason to stop half way.
fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn end(
    notes: &[String],
    faults: Vec<String>,
    places: &Surroundings,
    out: &mut impl Write,
) -> Result<()> {
    notes.iter().for_each(|note| say(out, note));
    if !faults.is_empty() {
        return Err(UninstallError::Left(faults));
    }
    let directories = [
        Some(places.bpffs.as_path()),
        Some(places.state_dir.as_path()),
        places.socket.parent().filter(|parent| *parent != places.state_dir),
        places.install.plugins.as_deref(),
        places.install.configurations.as_deref(),
    ];
    let directories = directories.into_iter().flatten().map(|path| path.display().to_string());
    let directories = directories.collect::<Vec<_>>().join(", ");
    let where_else = format!("in this network namespace, nor in {directories}");
    say(
        out,
        &format!("nothing else of Podwire is {where_else}; what it set below /proc/sys/net stays"),
    );
    Ok(())
}

fn some_of(pods: &[(String, String)]) -> String {
    let who = |(name, alias): &(String, String)| {
        let last = alias.rsplit(' ').next().filter(|pod| !pod.is_empty());
        last.unwrap_or(name).to_owned()
    };
    let mut named: Vec<String> = pods.iter().take(NAMED_MAX).map(who).collect();
    if pods.len() > NAMED_MAX {
        named.push("...".to_owned());
    }
    named.join(", ")
}

/// An agent would put everything back. Where its lock is missing there is none.
fn lock_out_agents(places: &Surroundings) -> Result<Vec<Flock<File>>> {
    let mut locks = Vec::new();
    if places.state_dir.join(LOCK_FILE).exists() {
        locks.push(unless_busy(lock_directory(&places.state_dir), &places.state_dir)?);
    }
    if places.bpffs.is_dir() {
        locks.push(unless_busy(lock_pins(&places.bpffs), &places.bpffs)?);
    }
    Ok(locks)
}

fn unless_busy(
    taken: std::result::Result<Flock<File>, StoreError>,
    directory: &Path,
) -> Result<Flock<File>> {
    match taken {
        Err(StoreError::Busy { .. } | StoreError::PinsBusy(_)) => {
            Err(UninstallError::Busy(directory.to_owned()))
        }
        taken => Ok(taken?),
    }
}

/// Ends when no plugin is at work any more, and none can begin.
async fn wait_for_plugins(socket: &Path) -> Result<Vec<Flock<File>>> {
    let deadline = Instant::now() + PLUGINS_TIME_MAX;
    let mut locks = Vec::new();
    let listed = presence::plugin_locks(socket);
    for path in listed.map_err(io_error("cannot list the locks of plugins"))? {
        let refused = || io_error(format!("cannot lock {}", path.display()));
        let mut file = File::open(&path).map_err(refused())?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break locks.push(lock),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
                Err((_, Errno::EWOULDBLOCK)) => return Err(UninstallError::Plugin(path)),
                Err((_, errno)) => return Err(refused()(errno.into())),
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(locks)
}
