//! The one task that owns the model and the kernel: everything that changes either goes through here.

mod attach;
mod collect;
mod delegated;
mod leases;
mod orphans;
mod ready;
mod reconcile;
mod report;
mod sourced;
mod sweep;
mod vitals;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use cni_shim::names::BigTcp;
use cni_shim::protocol::{Call, Reply};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use self::leases::Leases;
pub use self::sourced::Sourced;
use self::vitals::Reconciliations;
use crate::compile::Compiled;
use crate::ipam::Ipam;
use crate::kernel::{Event, Kernel, KernelError, Observed, State};
use crate::model::Model;
use crate::monitor::Vitals;
use crate::nodes::source::{News, Readiness};
use crate::status::PeerStatus;
use crate::store::{Store, StoreError};

/// Maps, links and pins tell nothing when somebody changes them.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Events come in crowds.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Between two looks that events ask for, when they go on and on: a busy host, or somebody who undoes
/// what is put back.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Between two sweeps; what is missing in two of them is freed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A request with the place for its reply.
#[derive(Debug)]
pub struct Command {
    /// The request.
    pub call: Call,
    /// Where the reply goes.
    pub reply: oneshot::Sender<Reply>,
}

/// What the engine listens to.
#[derive(Debug)]
pub struct Inputs {
    /// Requests of the socket.
    pub commands: mpsc::Receiver<Command>,
    /// Changes in the kernel.
    pub events: mpsc::Receiver<Event>,
    /// What the source of nodes tells.
    pub nodes: mpsc::Receiver<News>,
    /// Ends the engine; dropped counts too.
    pub stop: oneshot::Receiver<()>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel cannot be looked at.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The state directory cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an engine is made with.
#[derive(Debug)]
pub struct Setup {
    /// Nodes and settings; no attachments.
    pub model: Model,
    /// Where the nodes come from.
    pub sourced: Sourced,
    /// The locked state directory.
    pub store: Store,
    /// The socket's path, beside which the plugin's locks are.
    pub socket: PathBuf,
    /// Nanoseconds since boot, for generations.
    pub boot_time_ns: u64,
    /// What the kernel edge finds wrong with the host.
    pub host_problems: fn() -> Vec<String>,
    /// What is wrong with the files on the host.
    pub install_problems: watch::Receiver<Vec<String>>,
    /// Where the engine says how it is.
    pub vitals: watch::Sender<Vitals>,
    /// Where it says how long packets of new pods may be.
    pub big_tcp: watch::Sender<BigTcp>,
}

/// Model, kernel, and what is known about the difference.
#[derive(Debug)]
pub struct Engine<K> {
    kernel: K,
    model: Model,
    ipam: Ipam,
    store: Store,
    socket: PathBuf,
    host_problems: fn() -> Vec<String>,
    install_problems: watch::Receiver<Vec<String>>,
    last_generation: u64,
    observed: Observed,
    compiled: Compiled,
    /// What was wanted when all was well the last time.
    settled: Option<State>,
    drift: BTreeMap<&'static str, u64>,
    /// Why the last reconciliation did not get through.
    failures: Vec<String>,
    sourced: Sourced,
    file_problems: BTreeMap<String, String>,
    /// Why files that were removed cannot be made again.
    store_problem: Option<String>,
    events_lost: bool,
    /// Whether `pw_nodes` is what was seen of it, and put since then: all that was put succeeded.
    knows_nodes: bool,
    /// Interfaces that the last sweep missed.
    missing: BTreeSet<String>,
    /// Time until the first sweep.
    sweep_in: Duration,
    leases: Leases,
    readiness: watch::Sender<Readiness>,
    reconciliations: Reconciliations,
    vitals: watch::Sender<Vitals>,
    big_tcp: watch::Sender<BigTcp>,
}

impl<K: Kernel> Engine<K> {
    /// Takes over what an earlier agent left: files, entries, links.
    ///
    /// # Errors
    /// When the state directory or the kernel cannot be read.
    pub async fn start(kernel: K, setup: Setup) -> Result<Self, StartError> {
        let loaded = setup.store.load()?;
        let (missing, age) = setup.store.missing();
        // Two looks are as far apart as with one agent; without an earlier one the first is due.
        let sweep_in =
            if missing.is_empty() { Duration::ZERO } else { SWEEP_EVERY.saturating_sub(age) };
        let mut engine = Self {
            kernel,
            model: setup.model,
            ipam: Ipam::default(),
            store: setup.store,
            socket: setup.socket,
            host_problems: setup.host_problems,
            install_problems: setup.install_problems,
            last_generation: setup.boot_time_ns,
            observed: Observed::default(),
            compiled: Compiled::default(),
            settled: None,
            drift: BTreeMap::new(),
            failures: Vec::new(),
            sourced: setup.sourced,
            file_problems: BTreeMap::new(),
            store_problem: None,
            events_lost: false,
            knows_nodes: false,
            missing,
            sweep_in,
            leases: Leases::default(),
            readiness: watch::Sender::default(),
            reconciliations: Reconciliations::default(),
            vitals: setup.vitals,
            big_tcp: setup.big_tcp,
        };
        engine.model.raised = engine.store.raised();
        engine.observed = engine.observe().await?;
        if let Some(why) = engine.observed.unknown.get("pod") {
            // Without them an address that a pod has would be given to another.
            let what = "take over the pods".to_owned();
            return Err(KernelError { what, source: why.clone().into() }.into());
        }
        engine.take_over(loaded);
        Ok(engine)
    }

    /// Works until it is told to stop. What it set up stays and goes on forwarding.
    pub async fn run(&mut self, mut inputs: Inputs) {
        let mut whole = Instant::now() + LOOK_EVERY;
        let mut due = whole;
        let mut sweep = interval_at(Instant::now() + self.sweep_in, SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::default();
        let mut events_ended = false;
        let mut tell = None;
        self.tell_vitals();
        loop {
            let soon = Instant::now() + DEBOUNCE;
            tokio::select! {
                _ = &mut inputs.stop => return,
                Some(command) = inputs.commands.recv() => {
                    self.serve(command).await;
                    // The reply goes out first: a pod waits for it.
                    yield_now().await;
                }
                Some(news) = inputs.nodes.recv() => {
                    let is_put = self.take_nodes(news) && self.put_nodes().await;
                    due = due.min(if is_put { pace.next_look() } else { soon });
                }
                event = inputs.events.recv(), if !events_ended => {
                    events_ended = event.is_none();
                    self.take_event(event).await;
                    due = due.min(pace.next_look());
                    continue;
                }
                () = sleep_until(due) => {
                    self.restore_files();
                    if Instant::now() < whole {
                        self.reconcile_events().await;
                    } else {
                        self.reconcile().await;
                        whole = Instant::now() + LOOK_EVERY;
                    }
                    pace.has_looked();
                    due = whole;
                }
                _ = sweep.tick() => self.sweep().await,
                Some(freed) = self.leases.next() => self.lease_freed(freed).await,
                () = reached(tell) => {
                    self.tell_vitals();
                    tell = None;
                    continue;
                }
            }
            // It takes a third of the time that an ADD takes here, and the plugin may wait for this processor.
            tell.get_or_insert_with(|| Instant::now() + DEBOUNCE);
        }
    }

    fn restore_files(&mut self) {
        match self.store.restore(self.model.attachments.iter()) {
            Ok(true) => tracing::warn!("the state directory lost files: made again"),
            Ok(false) => {}
            Err(error) => {
                let problem = error.to_string();
                if self.store_problem.as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.store_problem = Some(problem);
                return;
            }
        }
        self.store_problem = None;
    }

    async fn serve(&mut self, command: Command) {
        let reply = match command.call {
            Call::Add(call) => match self.add(&call).await {
                Ok(added) => Reply::Added(added),
                Err(failure) => Reply::Failed(failure),
            },
            Call::Del(call) => match self.del(&call).await {
                Ok(()) => Reply::Deleted,
                Err(failure) => Reply::Failed(failure),
            },
            Call::Status => self.status_reply().await,
            Call::Ready(call) => match self.ready(&call) {
                Ok(()) => Reply::Ready,
                Err(failure) => Reply::Failed(failure),
            },
            Call::Gc(call) => match self.collect(&call).await {
                Ok((collected, returns)) => return returns.reply(collected, command.reply),
                Err(failure) => Reply::Failed(failure),
            },
        };
        // A client that went away finds what it asked for by asking again.
        let _ = command.reply.send(reply);
    }

    async fn take_event(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Changed) => {}
            Some(Event::LinkRemoved { ifindex, name }) => self.link_removed(ifindex, &name).await,
            Some(Event::Lost) | None => {
                tracing::error!(
                    "the kernel's events ended: changes are seen every {} s only",
                    LOOK_EVERY.as_secs()
                );
                self.events_lost = true;
            }
        }
    }

    /// How the peers are reached, for `status`: as it is in the maps, not as the kernel has it by now.
    fn peer_statuses(&self) -> Vec<PeerStatus> {
        self.compiled.peers().map(|peer| PeerStatus::from(&peer)).collect()
    }
}

/// Waits for a time; for ever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// How soon after an event to look: soon, but not again and again.
#[derive(Debug)]
struct Pace {
    pause: Duration,
    last_look: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: DEBOUNCE, last_look: None }
    }
}

impl Pace {
    fn next_look(&self) -> Instant {
        let soon = Instant::now() + DEBOUNCE;
        self.last_look.map_or(soon, |last| soon.max(last + self.pause))
    }

    /// The pause doubles with each look that comes right after another.
    fn has_looked(&mut self) {
        let now = Instant::now();
        let is_close = self.last_look.is_some_and(|last| now < last + self.pause * 3);
        self.pause = if is_close { PAUSE_MAX.min(self.pause * 2) } else { DEBOUNCE };
        self.last_look = Some(now);
    }
}

#[cfg(test)]
mod tests;
