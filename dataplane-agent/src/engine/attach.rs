//! ADD and DEL.

use std::net::IpAddr;

use cni_shim::delegation::Delegation;
use cni_shim::protocol::{AddCall, Added, DelCall, Failure, Near, Source};
use dataplane_core::abi::names::{PROGRAM_FROM_POD, PROGRAM_TO_POD};
use dataplane_core::abi::{Addr, PodEntry};

use super::Engine;
use crate::failure;
use crate::kernel::{Action, Kernel};
use crate::model::Attached;

impl<K: Kernel> Engine<K> {
    /// Gives an attachment its addresses; its entries are in the map before this returns.
    pub(super) async fn add(&mut self, call: &AddCall) -> Result<Added, Failure> {
        self.check_ready()?;
        check_call(call)?;
        self.check_programs(call)?;
        let name = call.attachment.host_ifname();
        self.leases.check_returned(&name)?;
        let attached = match &call.source {
            Source::Pools(asked) => self.add_of_pools(&name, call, asked).await?,
            Source::Announced(delegation) => self.announce(&name, call, delegation).await?,
            Source::Leased(addresses) => self.add_leased(&name, call, addresses).await?,
        };
        if let Err(failure) = self.put_entries(&attached).await {
            // The plugin gives up after a failure, so nothing may stay; but that there is a lease.
            let _ = match attached.delegation {
                Some(_) => self.remove_entries(&attached).await,
                None => self.forget(&name).await,
            };
            return Err(failure);
        }
        if self.has_routes_of_its_own(&attached)
            && !self.reconcile().await
            && let Err(failure) = self.check_routes(&attached).await
        {
            self.take_back(&name, &attached).await;
            return Err(failure);
        }
        Ok(Added { addresses: attached.addresses, mtu: self.compiled.pod_mtu, near: self.near() })
    }

    /// The pods of this node, where larger packets reach them than reach all.
    fn near(&self) -> Option<Near> {
        let own = self.model.own()?;
        (self.compiled.near_mtu > self.compiled.pod_mtu).then(|| Near {
            mtu: self.compiled.near_mtu,
            cidrs: own.pod_cidrs.clone(),
            node: own.pod_cidrs.iter().map(crate::model::gateway).collect(),
        })
    }

    /// Takes the addresses of an attachment back.
    pub(super) async fn del(&mut self, call: &DelCall) -> Result<(), Failure> {
        let name = call.attachment.host_ifname();
        let attached = self.model.attachments.get(&name).cloned();
        match attached.filter(|attached| attached.delegation.is_some() && !call.lease_freed) {
            // The sweep gives the lease back, and needs the file for that.
            Some(attached) => self.remove_entries(&attached).await,
            None => self.forget(&name).await,
        }
    }

    async fn add_of_pools(
        &mut self,
        name: &str,
        call: &AddCall,
        asked: &[IpAddr],
    ) -> Result<Attached, Failure> {
        match self.model.attachments.get(name).cloned() {
            Some(old) if is_repeated(&old, call) && old.delegation.is_none() => Ok(old),
            Some(old) => self.replace(name, &old, call, asked).await,
            None => self.create(name, call, asked).await,
        }
    }

    /// Removes entries at once when an interface is gone; the addresses wait for DEL or the sweep.
    pub(super) async fn link_removed(&mut self, ifindex: u32, name: &str) {
        let Some(attached) = self.model.attachments.get(name) else { return };
        if attached.ifindex != ifindex {
            return;
        }
        let attached = attached.clone();
        if let Err(error) = self.remove_entries(&attached).await {
            tracing::error!(%error, interface = name, "the entry of an interface that is gone");
        }
    }

    pub(super) async fn remove_entries(&mut self, attached: &Attached) -> Result<(), Failure> {
        for address in &attached.addresses {
            let removed = self.remove_entry(Addr::from(*address), &attached.entry()).await;
            removed.map_err(|error| failure::kernel(&error))?;
        }
        Ok(())
    }

    /// Removes entries, file and reservation, in this order, so that an error leaves what can be tried
    /// again. What is gone already is no error.
    pub(super) async fn forget(&mut self, name: &str) -> Result<(), Failure> {
        let attached = self.model.attachments.get(name);
        let mut entries: Vec<(Addr, PodEntry)> = attached
            .iter()
            .flat_map(|attached| {
                attached.addresses.iter().map(|ip| (Addr::from(*ip), attached.entry()))
            })
            .collect();
        let orphaned = self.model.orphans.get(name).into_iter().flatten();
        entries.extend(orphaned.map(|(key, entry)| (Addr::from(*key), *entry)));
        for (address, entry) in &entries {
            self.remove_entry(*address, entry).await.map_err(|error| failure::kernel(&error))?;
        }
        self.store.remove(name).map_err(|error| failure::store(&error))?;
        self.model.attachments.remove(name);
        self.model.orphans.remove(name);
        self.file_problems.remove(name);
        self.forget_missing(name);
        for (address, _) in entries {
            self.ipam.free(address.to_ip());
        }
        Ok(())
    }

    pub(super) fn check_ready(&self) -> Result<(), Failure> {
        if let Some(why) = self.sourced.waiting() {
            return Err(failure::try_again("this node can have no pods yet", why));
        }
        if let Some(why) = &self.compiled.obstacle {
            return Err(failure::try_again("this node cannot have pods", why));
        }
        if self.settled.is_some() {
            return Ok(());
        }
        let why = self.failures.first().map_or("it has just started", String::as_str);
        Err(failure::try_again("the agent has not set up the node yet", why))
    }

    /// An agent that is replaced may have pinned other programs since the plugin attached.
    fn check_programs(&mut self, call: &AddCall) -> Result<(), Failure> {
        let ids = self.kernel.program_ids().map_err(|error| failure::kernel(&error))?;
        let pinned = [PROGRAM_FROM_POD, PROGRAM_TO_POD].map(|name| ids.get(name).copied());
        if pinned == call.program_ids.map(Some) {
            return Ok(());
        }
        Err(failure::try_again(
            "the attached programs are not those of the agent",
            &format!("attached {:?}, pinned {pinned:?}: was the agent replaced?", call.program_ids),
        ))
    }

    async fn create(
        &mut self,
        name: &str,
        call: &AddCall,
        asked: &[IpAddr],
    ) -> Result<Attached, Failure> {
        if self.model.orphans.contains_key(name) {
            self.forget(name).await?;
        }
        let addresses = self.ipam.allocate(asked).map_err(|error| failure::ipam(&error))?;
        self.warn_if_full();
        self.register(name, call, addresses.clone(), None).inspect_err(|_| {
            for address in addresses {
                self.ipam.free(address);
            }
        })
    }

    /// The interface of the earlier ADD is gone: its successor keeps the addresses, or gets those that
    /// it asks for.
    async fn replace(
        &mut self,
        name: &str,
        old: &Attached,
        call: &AddCall,
        asked: &[IpAddr],
    ) -> Result<Attached, Failure> {
        self.check_replaceable(name, old, call).await?;
        if asked.iter().all(|address| old.addresses.contains(address)) {
            return self.register(name, call, old.addresses.clone(), None);
        }
        self.forget(name).await?;
        self.create(name, call, asked).await
    }

    /// Refuses another interface beside one that lives, and one whose lease would be lost.
    pub(super) async fn check_replaceable(
        &mut self,
        name: &str,
        old: &Attached,
        call: &AddCall,
    ) -> Result<(), Failure> {
        let is_ours = old.attachment == call.attachment && old.delegation.is_none();
        if is_ours && (old.ifindex == call.ifindex || !self.is_live(name, old).await?) {
            return Ok(());
        }
        Err(failure::conflict(&format!(
            "{name} (index {}) belongs to {} of container {} already: DEL it first",
            old.ifindex, old.attachment.ifname, old.attachment.container_id
        )))
    }

    pub(super) async fn is_live(&mut self, name: &str, of: &Attached) -> Result<bool, Failure> {
        let observed = self.observe().await.map_err(|error| failure::kernel(&error))?;
        let has_name = observed.interfaces.get(name).is_some_and(|l| l.ifindex == of.ifindex);
        Ok(has_name || observed.renamed(of).is_some())
    }

    pub(super) fn register(
        &mut self,
        name: &str,
        call: &AddCall,
        addresses: Vec<IpAddr>,
        delegation: Option<Box<Delegation>>,
    ) -> Result<Attached, Failure> {
        self.last_generation = self.last_generation.saturating_add(1);
        let attached = Attached {
            attachment: call.attachment.clone(),
            network: call.network.clone(),
            netns: call.netns.clone(),
            pod: call.pod.clone(),
            ifindex: call.ifindex,
            host_mac: call.host_mac,
            pod_mac: call.pod_mac,
            addresses,
            generation: self.last_generation,
            delegation,
        };
        self.store.put(name, &attached).map_err(|error| failure::store(&error))?;
        self.model.attachments.insert(name.to_owned(), attached.clone());
        Ok(attached)
    }

    async fn put_entries(&mut self, attached: &Attached) -> Result<(), Failure> {
        for address in &attached.addresses {
            let address = Addr::from(*address);
            let action = Action::PutPod { address, entry: attached.entry() };
            self.apply(&action).await.map_err(|error| failure::kernel(&error))?;
            if let Some(settled) = &mut self.settled {
                settled.pods.insert(address.into(), attached.entry());
            }
        }
        Ok(())
    }

    async fn remove_entry(
        &mut self,
        address: Addr,
        entry: &PodEntry,
    ) -> Result<(), crate::kernel::KernelError> {
        self.apply(&Action::RemovePod { address, generation: entry.generation }).await?;
        if let Some(settled) = &mut self.settled {
            settled.pods.remove(&address.into());
        }
        Ok(())
    }

    fn warn_if_full(&self) {
        for usage in self.ipam.usage().iter().filter(|usage| usage.is_high()) {
            tracing::warn!(cidr = %usage.cidr, used = usage.used, capacity = usage.capacity,
                "the pool of pod addresses is nearly used up");
        }
    }
}

/// The same ADD again, after a reply that was lost.
pub(super) fn is_repeated(old: &Attached, call: &AddCall) -> bool {
    old.attachment == call.attachment
        && (old.ifindex, old.host_mac, old.pod_mac) == (call.ifindex, call.host_mac, call.pod_mac)
}

fn check_call(call: &AddCall) -> Result<(), Failure> {
    let parts = [&call.attachment.container_id, &call.attachment.ifname];
    if parts.iter().any(|part| part.is_empty() || part.contains('\0')) || call.ifindex == 0 {
        return Err(failure::bad_request("an ADD names a container, an interface and its index"));
    }
    Ok(())
}
