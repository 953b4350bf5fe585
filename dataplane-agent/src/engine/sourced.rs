//! What the engine knows of its nodes' source.

use std::time::SystemTime;

use tokio::sync::watch;

use super::Engine;
use crate::kernel::Kernel;
use crate::nodes::source::{Known, News, Origin, Readiness, age};
use crate::status::SourceStatus;

/// Where the nodes come from, how new they are, and what is wrong with them.
#[derive(Clone, Debug, Default)]
pub struct Sourced {
    name: String,
    /// None: what is known is as new as can be.
    silent_since: Option<SystemTime>,
    /// Why the source tells nothing.
    trouble: Option<String>,
    doubts: Vec<String>,
    /// Why this node can have no new pods.
    waiting: Option<String>,
}

impl Sourced {
    /// What is known when the engine starts.
    pub fn new(known: &Known, origin: &Origin) -> Self {
        Self {
            name: origin.name.clone(),
            silent_since: origin.silent_since,
            trouble: None,
            doubts: known.doubts.clone(),
            waiting: known.waiting.clone(),
        }
    }

    /// Why this node can have no new pods.
    pub(super) fn waiting(&self) -> Option<&String> {
        self.waiting.as_ref()
    }

    /// Since when it has not been heard.
    pub(super) fn silent_since(&self) -> Option<SystemTime> {
        self.silent_since
    }

    pub(super) fn status(&self, nodes: usize) -> SourceStatus {
        SourceStatus {
            name: self.name.clone(),
            nodes,
            current: self.silent_since.is_none(),
            age_seconds: age(self.silent_since).as_secs(),
            trouble: self.trouble.clone(),
        }
    }

    /// What an operator should look at.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let waiting =
            self.waiting.iter().map(|why| format!("this node can have no new pods: {why}"));
        waiting.chain(self.trouble.iter().cloned()).chain(self.doubts.iter().cloned())
    }
}

impl<K: Kernel> Engine<K> {
    /// Takes what the source of nodes tells. True when the nodes are others.
    pub(super) fn take_nodes(&mut self, news: impl Into<News>) -> bool {
        let news = news.into();
        if let News::Trouble(why) = news {
            let sourced = &mut self.sourced;
            if sourced.trouble.as_ref() != Some(&why) {
                tracing::error!("{why}");
            }
            sourced.silent_since.get_or_insert_with(SystemTime::now);
            sourced.trouble = Some(why);
            return false;
        }
        self.sourced.silent_since = None;
        if self.sourced.trouble.take().is_some() {
            tracing::info!("{}: heard again", self.sourced.name);
        }
        let News::Nodes(known) = news else { return false };
        let are_new = self.model.nodes != known.nodes;
        if are_new {
            tracing::info!(nodes = known.nodes.len(), "the nodes are new");
        }
        self.model.nodes = known.nodes;
        self.sourced.doubts = known.doubts;
        self.sourced.waiting = known.waiting;
        let cidrs = self.model.own().map(|own| own.pod_cidrs.clone());
        self.ipam.set_cidrs(&cidrs.unwrap_or_default());
        self.tell_readiness();
        are_new
    }

    /// Whether an ADD would be served, from now on.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    pub(super) fn tell_readiness(&self) {
        let now = match self.check_ready() {
            Ok(()) => Readiness::Ready,
            Err(_) if self.settled.is_none() && self.sourced.waiting.is_none() => {
                Readiness::Starting
            }
            Err(failure) => Readiness::Not(format!("{}: {}", failure.message, failure.details)),
        };
        self.readiness.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
    }
}
