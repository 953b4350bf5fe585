//! Taking over from an earlier agent.

use dataplane_core::abi::{Addr, PodEntry};

use super::Engine;
use crate::ipam::Ipam;
use crate::kernel::Kernel;
use crate::model::is_pod_interface;
use crate::store::Loaded;

impl<K: Kernel> Engine<K> {
    /// Fills model and pools. An interface whose file is lost or unreadable keeps its entries and
    /// addresses until it is gone.
    pub(super) fn take_over(&mut self, loaded: Loaded) {
        for (name, why) in loaded.unreadable {
            let path = self.store.path(&name);
            let problem = format!(
                "{}: not an attachment: {why}; the pod behind {name} goes on, its addresses are kept \
                 until its interface is gone",
                path.display()
            );
            tracing::error!("{problem}");
            self.model.orphans.insert(name.clone(), Vec::new());
            self.file_problems.insert(name, problem);
        }
        self.model.attachments.extend(loaded.attachments);
        self.find_orphans();

        let state = &self.observed.state;
        let given = self.model.attachments.values().map(|attached| attached.generation);
        let in_map = state.pods.values().map(|entry| entry.generation);
        self.last_generation = given.chain(in_map).fold(self.last_generation, u64::max);

        let cidrs = self.model.own().map(|own| own.pod_cidrs.clone()).unwrap_or_default();
        let attached = self.model.attachments.values();
        let attached = attached.flat_map(|a| a.addresses.iter().map(|ip| (*ip, a.generation)));
        let orphaned = self.model.orphans.values().flatten();
        let orphaned = orphaned.map(|(key, e)| (Addr::from(*key).to_ip(), e.generation));
        self.ipam = if state.pods.is_empty() {
            // Not even the node's own entries: no agent was here since the node started.
            let mut ipam = Ipam::new(&cidrs);
            attached.chain(orphaned).for_each(|(address, _)| ipam.reserve(address));
            ipam
        } else {
            Ipam::resume(&cidrs, attached.chain(orphaned), self.last_generation)
        };
    }

    fn find_orphans(&mut self) {
        for (key, entry) in &self.observed.state.pods {
            let owner = self.observed.interfaces.values().find(|link| {
                entry.kind == PodEntry::POD
                    && link.ifindex == entry.ifindex
                    && is_pod_interface(&link.name)
            });
            let Some(name) = owner.map(|link| link.name.clone()) else { continue };
            if self.model.attachments.contains_key(&name) {
                continue;
            }
            self.model.orphans.entry(name.clone()).or_default().push((*key, *entry));
            let path = self.store.path(&name);
            self.file_problems.entry(name.clone()).or_insert_with(|| {
                let problem = format!(
                    "{} is lost; the pod behind {name} goes on, its addresses are kept until its \
                     interface is gone",
                    path.display()
                );
                tracing::error!("{problem}");
                problem
            });
        }
    }
}
