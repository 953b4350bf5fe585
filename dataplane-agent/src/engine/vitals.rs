//! How the engine is, for those who must not ask it.

use cni_shim::protocol::ReadyCall;
use dataplane_core::abi::names::{MAP_NODES, MAP_PODS};
use tokio::time::Instant;

use super::Engine;
use crate::kernel::Kernel;
use crate::monitor::Vitals;

/// How the looks at the kernel have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reconciliations {
    pub(super) settled: u64,
    pub(super) failed: u64,
}

impl<K: Kernel> Engine<K> {
    /// Says how the engine is, and that it lives.
    pub(super) fn tell_vitals(&mut self) {
        let ready = self.ready(&ReadyCall { pools: true });
        let state = &self.observed.state;
        let entries = [(MAP_PODS, state.pods.len()), (MAP_NODES, state.nodes.len())];
        self.vitals.send_replace(Vitals {
            beat: Instant::now(),
            ready: ready.map_err(|why| format!("{}: {}", why.message, why.details)),
            nodes: self.model.nodes.len(),
            pods: self.model.attachments.len(),
            problems: self.own_problems(Vec::new()).len(),
            silent_since: self.sourced.silent_since(),
            settled: self.reconciliations.settled,
            failed: self.reconciliations.failed,
            drift: self.drift.clone(),
            pools: self.ipam.usage(),
            entries: entries.into(),
        });
    }
}
