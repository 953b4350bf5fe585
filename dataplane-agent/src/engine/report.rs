//! The status document, from what the engine knows.

use cni_shim::protocol::Reply;
use dataplane_core::abi::{ABI_VERSION, Counter};

use super::Engine;
use crate::failure;
use crate::kernel::{Kernel, KernelError};
use crate::status::{
    BigTcpStatus, CounterStatus, NodeStatus, PodStatus, PoolStatus, ProgramStatus, Status,
};

impl<K: Kernel> Engine<K> {
    pub(super) async fn status_reply(&mut self) -> Reply {
        match serde_json::to_value(self.status().await) {
            Ok(document) => Reply::Status(Box::new(document)),
            Err(error) => Reply::Failed(failure::bad_request(&error.to_string())),
        }
    }

    /// The status document. What the kernel does not tell is left out, and is a problem.
    pub async fn status(&mut self) -> Status {
        let mut refused = Vec::new();
        match self.observe().await {
            Ok(observed) => self.observed = observed,
            Err(error) => refused.push(error.to_string()),
        }
        refused.extend(self.observed.unknown.values().cloned());
        let mut refuse = |error: KernelError| refused.push(error.to_string());
        let programs = self.kernel.program_ids().map_err(&mut refuse).unwrap_or_default();
        let counters = self.counter_statuses().map_err(refuse).unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            abi_version: ABI_VERSION,
            settled: self.settled.is_some() && self.failures.is_empty() && refused.is_empty(),
            source: Some(self.sourced.status(self.model.nodes.len())),
            node: self.node_status(),
            pools: self.pool_statuses(),
            pods: self.pod_statuses(),
            peers: self.peer_statuses(),
            programs: programs.into_iter().map(|(name, id)| ProgramStatus { name, id }).collect(),
            counters,
            drift: self.drift.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
            problems: self.problems(refused).await,
        }
    }

    fn node_status(&self) -> NodeStatus {
        let own = self.model.own();
        NodeStatus {
            name: self.model.own_name.clone(),
            addresses: own.map(|own| own.addresses.clone()).unwrap_or_default(),
            pod_cidrs: own.map(|own| own.pod_cidrs.clone()).unwrap_or_default(),
            cluster_cidrs: self.model.cluster_cidrs(),
            encapsulation: self.model.network.encapsulation,
            uplinks: self.compiled.uplinks.clone(),
            pod_mtu: self.compiled.pod_mtu,
            big_tcp: Some(BigTcpStatus {
                pods: self.compiled.big_tcp.pods,
                why: self.compiled.big_tcp.why.clone(),
            }),
        }
    }

    fn pool_statuses(&self) -> Vec<PoolStatus> {
        let status = |usage: crate::ipam::Usage| PoolStatus {
            cidr: usage.cidr,
            used: usage.used as u64,
            capacity: u64::try_from(usage.capacity).unwrap_or(u64::MAX),
        };
        self.ipam.usage().into_iter().map(status).collect()
    }

    fn pod_statuses(&self) -> Vec<PodStatus> {
        self.model
            .attachments
            .iter()
            .map(|(name, attached)| PodStatus {
                interface: name.clone(),
                ifindex: attached.ifindex,
                container_id: attached.attachment.container_id.clone(),
                ifname: attached.attachment.ifname.clone(),
                network: attached.network.clone(),
                pod: attached.pod.clone(),
                addresses: attached.addresses.clone(),
                generation: attached.generation,
                present: self
                    .observed
                    .interfaces
                    .get(name)
                    .is_some_and(|link| link.ifindex == attached.ifindex),
            })
            .collect()
    }

    fn counter_statuses(&mut self) -> Result<Vec<CounterStatus>, KernelError> {
        let counted = self.kernel.counters()?;
        let status = |counter: Counter| {
            let stats = counted.get(&counter.number()).copied().unwrap_or_default();
            let (kind, help) = match counter {
                Counter::Path(path) => ("path", path.help()),
                Counter::Drop(reason) => ("drop", reason.help()),
            };
            CounterStatus {
                number: counter.number(),
                name: counter.name().to_owned(),
                kind: kind.to_owned(),
                packets: stats.packets,
                bytes: stats.bytes,
                help: help.to_owned(),
            }
        };
        Ok(Counter::all().map(status).collect())
    }

    async fn problems(&self, refused: Vec<String>) -> Vec<String> {
        let mut problems = self.own_problems(refused);
        // It may start programs and wait for them.
        let of_host = tokio::task::spawn_blocking(self.host_problems).await;
        problems.extend(of_host.unwrap_or_default());
        problems
    }

    /// All but those of the host.
    pub(super) fn own_problems(&self, refused: Vec<String>) -> Vec<String> {
        let mut problems = self.failures.clone();
        problems.extend(refused.into_iter().filter(|why| !self.failures.contains(why)));
        problems.extend(self.sourced.problems());
        problems.extend(self.store_problem.clone());
        problems.extend(self.file_problems.values().cloned());
        problems.extend(self.compiled.problems.iter().cloned());
        for usage in self.ipam.usage().iter().filter(|usage| usage.is_high()) {
            problems.push(format!(
                "{} of {} addresses of {} are in use: remove pods, or give the node a larger network",
                usage.used, usage.capacity, usage.cidr
            ));
        }
        if self.events_lost {
            problems.push(
                "the kernel's events ended: changes are seen later; restart the agent".to_owned(),
            );
        }
        problems.extend(self.install_problems.borrow().iter().cloned());
        problems
    }
}
