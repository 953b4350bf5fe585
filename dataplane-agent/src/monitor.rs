//! Health and metrics over HTTP, for Kubernetes and Prometheus.
//!
//! Nothing here asks the engine: it says by itself how it is ([`Vitals`]), so that no client holds it up.

mod http;
mod metrics;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

pub use self::http::{ListenError, Listener, Serving};
pub use self::metrics::{Calls, call_name};
use crate::ipam::Usage;
use crate::kernel::ReadCounters;

/// The engine comes by every few seconds. Its longest steps have limits of ten.
const BEAT_TIME_MAX: Duration = Duration::from_secs(60);

/// How the engine is, as it says itself.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// When it said so.
    pub beat: Instant,
    /// Whether an ADD would be served, or why not.
    pub ready: Result<(), String>,
    /// Nodes that are known, this one among them.
    pub nodes: usize,
    /// Interfaces of pods.
    pub pods: usize,
    /// What an operator should look at.
    pub problems: usize,
    /// Since when the source of nodes has not been heard; none: what is known is as new as can be.
    pub silent_since: Option<SystemTime>,
    /// Looks that ended with nothing left to do.
    pub settled: u64,
    /// Looks that did not.
    pub failed: u64,
    /// How often something of ours was changed by somebody else and put back, by kind.
    pub drift: BTreeMap<&'static str, u64>,
    /// The pools of addresses.
    pub pools: Vec<Usage>,
    /// Entries of the maps that can fill, by name.
    pub entries: BTreeMap<&'static str, usize>,
}

impl Vitals {
    /// Those of an engine that begins to start.
    pub fn starting() -> Self {
        Self {
            beat: Instant::now(),
            ready: Err("the agent starts".to_owned()),
            nodes: 0,
            pods: 0,
            problems: 0,
            silent_since: None,
            settled: 0,
            failed: 0,
            drift: BTreeMap::new(),
            pools: Vec::new(),
            entries: BTreeMap::new(),
        }
    }

    fn is_alive(&self) -> Result<(), String> {
        let silent = self.beat.elapsed();
        if silent <= BEAT_TIME_MAX {
            return Ok(());
        }
        Err(format!(
            "the agent's loop has not come by for {} s: its log says what it does",
            silent.as_secs()
        ))
    }
}

/// What the answers are made from.
pub struct Monitor {
    vitals: watch::Receiver<Vitals>,
    calls: Calls,
    counters: OnceLock<ReadCounters>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("vitals", &self.vitals).finish_non_exhaustive()
    }
}

/// An answer, before it is one of HTTP.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }

    fn health(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::text(200, "ok"),
            Err(why) => Self::text(503, &why),
        }
    }
}

impl Monitor {
    /// Answers from what the engine says, and from what the server counts.
    pub fn new(vitals: watch::Receiver<Vitals>, calls: Calls) -> Self {
        Self { vitals, calls, counters: OnceLock::new() }
    }

    /// Adds the counters, once the programs are there.
    pub fn count(&self, counters: ReadCounters) {
        // There is one kernel per agent.
        let _ = self.counters.set(counters);
    }

    fn answer(&self, path: &str) -> Answer {
        match path {
            "/healthz" => Answer::health(self.vitals.borrow().is_alive()),
            "/readyz" => Answer::health(self.readiness()),
            "/metrics" => match metrics::render(&self.vitals.borrow(), &self.calls, &self.counters)
            {
                Ok(body) => Answer { status: 200, content_type: metrics::CONTENT_TYPE, body },
                Err(error) => Answer::text(500, &format!("no metrics: {error}")),
            },
            _ => Answer::text(404, "here are /healthz, /readyz and /metrics"),
        }
    }

    /// An engine that is stuck serves no ADD, whatever it said last.
    fn readiness(&self) -> Result<(), String> {
        let vitals = self.vitals.borrow();
        vitals.is_alive()?;
        vitals.ready.clone()
    }
}

#[cfg(test)]
mod tests;
