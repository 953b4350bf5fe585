//! Frees what runtimes forgot: attachments and pins whose interface is gone, and what a killed ADD left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use nix::fcntl::Flock;

use super::Engine;
use crate::kernel::{Action, Kernel, Link, Observed};
use crate::model::{Attached, Model, is_pod_interface};
use crate::store::{StoreError, plugin_lock_number, try_plugin_lock};

/// Plugins' locks, by their number: one serves many names.
pub(super) type Locks = BTreeMap<Option<u8>, Flock<File>>;

impl<K: Kernel> Engine<K> {
    /// Frees what was missing in the last sweep too, and still is when the plugin's lock is held.
    pub(super) async fn sweep(&mut self) {
        self.free_missing().await;
        self.remember_missing();
    }

    fn remember_missing(&self) {
        if let Err(error) = self.store.put_missing(&self.missing) {
            tracing::warn!(%error, "the next agent begins its sweeps anew");
        }
    }

    /// It is gone for good: nothing is left to be seen missing.
    pub(super) fn forget_missing(&mut self, name: &str) {
        if self.missing.remove(name) {
            self.remember_missing();
        }
    }

    async fn free_missing(&mut self) {
        let Ok(observed) = self.observe().await else { return };
        let now_missing = missing(&self.model, &observed);
        let mut locks = Locks::new();
        let mut suspects = BTreeSet::new();
        // What a plugin works at is nothing that runtimes forgot; what was seen before stays seen.
        let mut seen = BTreeSet::new();
        for name in now_missing {
            let is_free = self.lock_for_sweep(&mut locks, &name);
            if self.missing.contains(&name) {
                suspects.extend(is_free.then(|| name.clone()));
                seen.insert(name);
            } else if is_free {
                seen.insert(name);
            }
        }
        self.missing = seen;
        if suspects.is_empty() {
            return;
        }
        let Ok(observed) = self.observe().await else { return };
        let gone = missing(&self.model, &observed);
        for name in suspects.intersection(&gone) {
            if observed.interfaces.get(name).is_some_and(is_unfinished) {
                let action = Action::RemoveDevice { name: name.clone() };
                if let Err(error) = self.apply(&action).await {
                    tracing::error!(%error, interface = name, "cannot remove what an ADD left");
                    continue;
                }
            }
            if !self.free_lease(name) {
                self.free(name).await;
            }
        }
        self.model.released = suspects.intersection(&gone).cloned().collect();
        self.reconcile().await;
        // While the locks are held: behind them the plugin may make the same name anew.
        self.model.released.clear();
        drop(locks);
    }

    fn lock_for_sweep(&self, locks: &mut Locks, name: &str) -> bool {
        // Where the plugin is at it, the next sweep looks again.
        self.try_lock(locks, name).unwrap_or_else(|error| {
            tracing::warn!(%error, interface = name, "cannot sweep");
            false
        })
    }

    /// Whether `locks` has the plugin's lock of an attachment now.
    pub(super) fn try_lock(&self, locks: &mut Locks, name: &str) -> Result<bool, StoreError> {
        let number = plugin_lock_number(name);
        if !locks.contains_key(&number)
            && let Some(lock) = try_plugin_lock(&self.socket, name)?
        {
            locks.insert(number, lock);
        }
        Ok(locks.contains_key(&number))
    }

    pub(super) async fn free(&mut self, name: &str) {
        match self.forget(name).await {
            Ok(()) => {
                tracing::info!(interface = name, "it had no finished interface, and no DEL: freed");
            }
            Err(error) => tracing::error!(%error, interface = name, "cannot free"),
        }
    }
}

/// An ADD has made it and not come to its end, which sets it up: no packet has ever passed. One of a living
/// pod that somebody has set down had its carrier.
fn is_unfinished(link: &Link) -> bool {
    !link.up && link.unused && is_pod_interface(&link.name)
}

/// Attachments and pins whose interface does not exist, and interfaces that no ADD has finished.
fn missing(model: &Model, observed: &Observed) -> BTreeSet<String> {
    let index = |name: &str| observed.interfaces.get(name).map(|link| link.ifindex);
    let is_there = |name: &str, attached: &Attached| {
        index(name) == Some(attached.ifindex) || observed.renamed(attached).is_some()
    };
    let attached = model
        .attachments
        .iter()
        .filter(|(name, attached)| !is_there(name, attached))
        .map(|(name, _)| name);
    let unnamed = model.orphans.keys();
    let pinned = observed.state.links.keys().map(|(name, _)| name);
    let known = |name: &String| model.attachments.contains_key(name);
    let without = unnamed.chain(pinned).filter(|name| index(name).is_none() && !known(name));
    let unfinished = observed.interfaces.values().filter(|link| is_unfinished(link));
    let unfinished = unfinished.map(|link| &link.name);
    attached
        .chain(without)
        .chain(unfinished)
        .filter(|name| is_pod_interface(name))
        .cloned()
        .collect()
}
