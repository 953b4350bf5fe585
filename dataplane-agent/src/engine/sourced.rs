//! What the engine knows of its nodes' source.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::Engine;
use crate::kernel::Kernel;
use crate::model::{Model, Node};
use crate::nodes::changes::{Brief, Change, Changes, changes};
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
            tell_changes(&self.model, &known.nodes);
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

/// Says which nodes are others. Of the first list only how many there are: all of them are new.
fn tell_changes(model: &Model, now: &[Arc<Node>]) {
    let nodes = now.len();
    if model.nodes.is_empty() {
        tracing::info!(nodes, "the nodes are new");
        return;
    }
    let Changes { named, more } = changes(&model.nodes, now);
    if named.is_empty() {
        tracing::info!(nodes, "the nodes are the same, in another order");
    }
    for change in &named {
        tell_change(change, &model.own_name);
    }
    if more > 0 {
        tracing::info!(nodes, "and {more} more changed");
    }
}

fn tell_change(change: &Change<'_>, own_name: &str) {
    match change {
        Change::New(node) => {
            tracing::info!(node = node.name, addresses = ?Brief(&node.addresses),
                pod_networks = ?Brief(&node.pod_cidrs), "a node is new");
        }
        // Its pods keep their network: see `reconcile_events`.
        Change::Gone(node) if node.name == own_name => {
            tracing::info!(node = node.name, pod_networks = ?Brief(&node.pod_cidrs),
                "this node is gone: all stays as it is until it is back");
        }
        Change::Gone(node) => {
            tracing::info!(node = node.name, pod_networks = ?Brief(&node.pod_cidrs),
                "a node is gone: its pods can no longer be reached");
        }
        Change::Other { name, addresses: None, lost, added } => {
            tracing::info!(node = name, lost = ?Brief(lost), added = ?Brief(added),
                "a node has other pod networks");
        }
        Change::Other { name, addresses: Some([old, new]), lost, added } => {
            if lost.is_empty() && added.is_empty() {
                tracing::info!(node = name, old = ?Brief(old), new = ?Brief(new),
                    "a node has other addresses");
            } else {
                tracing::info!(node = name, old = ?Brief(old), new = ?Brief(new),
                    lost = ?Brief(lost), added = ?Brief(added),
                    "a node has other addresses and other pod networks");
            }
        }
    }
}
