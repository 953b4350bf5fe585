//! Look, compute, compare, act, until nothing is left to do.

use std::time::Duration;

use tokio::time::timeout;

use super::Engine;
use crate::compile::{compile_again, questions};
use crate::kernel::{Action, Kernel, KernelError, Observed, Questions};
use crate::memory;
use crate::plan::{describe, drift, kind, plan};

/// Devices come in the first round, what needs their index in the second; the rest is for somebody who
/// interferes meanwhile.
const ROUNDS_MAX: usize = 6;
/// Of the actions that remain after them.
const NAMED_MAX: usize = 8;
/// Kinds of what leads packets to other nodes.
const AT_ONCE: [&str; 2] = ["neighbour", "node"];
/// For one look or one action.
const STEP_TIME_MAX: Duration = Duration::from_secs(10);

impl<K: Kernel> Engine<K> {
    /// Brings the kernel to what the model wants, as far as it goes. True when it went all the way.
    pub async fn reconcile(&mut self) -> bool {
        self.knows_nodes = false;
        self.reconcile_events().await
    }

    /// Likewise, as far as events tell. None tells of a map: the large one is not read, if it is known.
    pub(super) async fn reconcile_events(&mut self) -> bool {
        if self.model.own().is_none() {
            // Nothing is wanted, nothing unwanted: what is there goes on, and `waiting` says why.
            self.tell_readiness();
            return false;
        }
        let mut failures = Vec::new();
        let mut remaining = String::new();
        for _ in 0..ROUNDS_MAX {
            failures.clear();
            match self.observe().await {
                Ok(observed) => {
                    self.knows_nodes = !observed.unknown.contains_key("node");
                    self.observed = observed;
                }
                Err(error) => {
                    failures.push(error.to_string());
                    break;
                }
            }
            self.compile();
            if !self.compiled.uplinks.is_empty() {
                self.model.last_uplinks.clone_from(&self.compiled.uplinks);
            }
            let mut actions = plan(&self.observed.state, &self.compiled.state);
            failures.extend(self.choose_big_tcp(&mut actions));
            let unknown = &self.observed.unknown;
            actions.retain(|action| !unknown.contains_key(kind(action)));
            failures.extend(unknown.values().cloned());
            if actions.is_empty() && !failures.is_empty() {
                break;
            }
            if actions.is_empty() {
                self.settle();
                return true;
            }
            let total = actions.len();
            remaining = actions.iter().take(NAMED_MAX).map(describe).collect::<Vec<_>>().join(", ");
            let refused = self.execute(actions).await;
            self.knows_nodes &= refused.is_empty();
            if self.knows_nodes {
                self.observed.state.nodes.clone_from(&self.compiled.state.nodes);
            }
            let is_stuck = refused.len() == total;
            failures.extend(refused);
            if is_stuck {
                break;
            }
        }
        if failures.is_empty() {
            failures.push(format!(
                "after {ROUNDS_MAX} rounds there is still something to do ({remaining}): \
                 does somebody else change the same things?"
            ));
        }
        self.fail(failures);
        false
    }

    /// What is wanted; what has not changed of a large cluster is in memory once.
    fn compile(&mut self) {
        self.compiled = compile_again(&self.model, &self.observed, &self.compiled);
        self.observed.state.nodes.share(&self.compiled.state.nodes);
    }

    /// Writes down what uplinks had before they are changed, and tells the plugin what pods get. Where the one fails
    /// the uplinks stay as they are.
    fn choose_big_tcp(&mut self, actions: &mut Vec<Action>) -> Option<String> {
        let chosen = &self.compiled.big_tcp;
        let pods = chosen.pods;
        self.big_tcp.send_if_modified(|told| std::mem::replace(told, pods) != pods);
        if chosen.raised == self.model.raised && self.store.has_raised(&chosen.raised) {
            return None;
        }
        if let Err(error) = self.store.put_raised(&chosen.raised) {
            actions.retain(|action| !matches!(action, Action::SetAggregates { .. }));
            return Some(error.to_string());
        }
        for name in chosen.raised.keys().filter(|name| !self.model.raised.contains_key(*name)) {
            tracing::info!("--big-tcp on: {name} is set to take packets of more than 64 KiB");
        }
        for name in self.model.raised.keys().filter(|name| !chosen.raised.contains_key(*name)) {
            tracing::info!("{name} takes packets of the size that it took before --big-tcp on");
        }
        self.model.raised.clone_from(&chosen.raised);
        None
    }

    /// Compares new nodes with what the last look found, and does at once what leads packets to them: they wait
    /// for it. The next look sees to all the rest. True when nothing failed.
    pub(super) async fn put_nodes(&mut self) -> bool {
        if self.settled.is_none() || self.model.own().is_none() {
            return false;
        }
        let peers = questions(&self.model, &self.observed).peers;
        let ways = self.kernel.ways(&peers, &self.observed.interfaces);
        match limited("ask for the ways to nodes", ways).await {
            Ok(ways) => self.observed.peer_routes = ways,
            Err(error) => {
                tracing::debug!("new nodes wait for the next look: {error}");
                return false;
            }
        }
        self.compile();
        let mut actions = plan(&self.observed.state, &self.compiled.state);
        let unknown = &self.observed.unknown;
        actions.retain(|action| {
            let kind = kind(action);
            AT_ONCE.contains(&kind) && !unknown.contains_key(kind)
        });
        // What is refused is tried again, and said, at the next look.
        let is_put = self.execute(actions).await.is_empty();
        self.knows_nodes &= is_put;
        let states = [Some(&mut self.observed.state), self.settled.as_mut()];
        for state in states.into_iter().flatten().filter(|_| is_put) {
            state.neighbours.clone_from(&self.compiled.state.neighbours);
            state.nodes.clone_from(&self.compiled.state.nodes);
        }
        is_put
    }

    /// Looks at the kernel; at `pw_nodes` unless it is known.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) async fn observe(&mut self) -> Result<Observed, KernelError> {
        let nodes = self.knows_nodes.then(|| self.observed.state.nodes.clone());
        let mut asked = Questions { nodes, ..questions(&self.model, &self.observed) };
        loop {
            let observed = limited("look at the kernel", self.kernel.observe(&asked)).await?;
            // Which values matter depends on the interfaces that there are.
            let wanted = questions(&self.model, &observed).sysctls;
            if wanted.is_subset(&asked.sysctls) {
                return Ok(observed);
            }
            asked.sysctls.extend(wanted);
        }
    }

    /// Does one action, within a time limit.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) async fn apply(&mut self, action: &Action) -> Result<(), KernelError> {
        limited("change the kernel", self.kernel.apply(action)).await
    }

    async fn execute(&mut self, actions: Vec<Action>) -> Vec<String> {
        let mut failures = Vec::new();
        for action in actions {
            match self.apply(&action).await {
                Ok(()) => self.record(&action),
                Err(error) => failures.push(format!("{}: {error}", describe(&action))),
            }
        }
        failures
    }

    fn record(&mut self, action: &Action) {
        let swept = matches!(action, Action::Detach { interface, .. }
            if self.model.released.contains(interface));
        let settled = self.settled.as_ref().filter(|_| !swept);
        let drifted = settled.map_or(0, |before| drift(action, before, &self.compiled.state));
        if drifted > 0 {
            let count = self.drift.entry(kind(action)).or_insert(0);
            *count = count.saturating_add(drifted);
            tracing::warn!("{} was changed by somebody else: put back", describe(action));
        } else {
            tracing::debug!("{}", describe(action));
        }
    }

    fn settle(&mut self) {
        if self.settled.is_none() {
            tracing::info!(uplinks = ?self.compiled.uplinks, mtu = self.compiled.pod_mtu,
                "the data plane is as it should be");
        } else if !self.failures.is_empty() {
            tracing::info!("the data plane is as it should be again");
        }
        self.failures.clear();
        self.reconciliations.settled = self.reconciliations.settled.saturating_add(1);
        self.settled = Some(self.compiled.state.clone());
        self.tell_readiness();
        memory::give_back();
    }

    /// Logs each failure once, not at every try.
    fn fail(&mut self, failures: Vec<String>) {
        for failure in failures.iter().filter(|failure| !self.failures.contains(failure)) {
            tracing::error!("{failure}");
        }
        self.failures = failures;
        self.reconciliations.failed = self.reconciliations.failed.saturating_add(1);
        self.tell_readiness();
    }
}

async fn limited<T>(
    what: &str,
    step: impl Future<Output = Result<T, KernelError>>,
) -> Result<T, KernelError> {
    timeout(STEP_TIME_MAX, step).await.unwrap_or_else(|elapsed| {
        Err(KernelError {
            what: format!("cannot {what} within {} s", STEP_TIME_MAX.as_secs()),
            source: elapsed.into(),
        })
    })
}
