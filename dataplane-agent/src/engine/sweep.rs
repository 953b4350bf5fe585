//! Frees what runtimes forgot: attachments and pins whose interface is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use super::leases::Locks;
use crate::kernel::{Kernel, Observed};
use crate::model::{Attached, Model, is_pod_interface};
use crate::store::{plugin_lock_number, try_plugin_lock};

impl<K: Kernel> Engine<K> {
    /// Frees what was missing in the last sweep too, and still is when the plugin's lock is held.
    pub(super) async fn sweep(&mut self) {
        let Ok(observed) = self.observe().await else { return };
        let now_missing = missing(&self.model, &observed);
        let mut locks = Locks::new();
        let mut suspects = BTreeSet::new();
        for name in now_missing.intersection(&self.missing) {
            let number = plugin_lock_number(name);
            // One lock serves many names.
            if locks.contains_key(&number) {
                suspects.insert(name.clone());
                continue;
            }
            match try_plugin_lock(&self.socket, name) {
                Ok(Some(lock)) => {
                    locks.insert(number, Arc::new(lock));
                    suspects.insert(name.clone());
                }
                // The plugin is at it: the next sweep.
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, interface = name, "cannot sweep"),
            }
        }
        self.missing = now_missing;
        if suspects.is_empty() {
            return;
        }
        let Ok(observed) = self.observe().await else { return };
        let gone = missing(&self.model, &observed);
        for name in suspects.intersection(&gone) {
            if !self.free_lease(name, locks.get(&plugin_lock_number(name))) {
                self.free(name).await;
            }
        }
        self.model.released = suspects.intersection(&gone).cloned().collect();
        self.reconcile().await;
        // While the locks are held: behind them the plugin may make the same name anew.
        self.model.released.clear();
        drop(locks);
    }

    pub(super) async fn free(&mut self, name: &str) {
        match self.forget(name).await {
            Ok(()) => {
                self.missing.remove(name);
                tracing::info!(interface = name, "its interface is gone without a DEL: freed");
            }
            Err(error) => tracing::error!(%error, interface = name, "cannot free"),
        }
    }
}

/// Attachments and pins whose interface does not exist.
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
    attached.chain(without).filter(|name| is_pod_interface(name)).cloned().collect()
}
