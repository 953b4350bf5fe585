//! ADD with the addresses of a delegated plugin.

use std::net::IpAddr;

use cni_shim::delegation::Delegation;
use cni_shim::protocol::{AddCall, Failure};
use dataplane_core::abi::Addr;
use ipnet::IpNet;

use super::Engine;
use super::attach::is_repeated;
use crate::failure;
use crate::kernel::Kernel;
use crate::model::Attached;

impl<K: Kernel> Engine<K> {
    /// Writes down how the lease is given back that the plugin is about to ask for.
    pub(super) async fn announce(
        &mut self,
        name: &str,
        call: &AddCall,
        delegation: &Delegation,
    ) -> Result<Attached, Failure> {
        if let Some(old) = self.model.attachments.get(name).cloned() {
            let is_same = old.delegation.as_deref() == Some(delegation);
            if is_repeated(&old, call) && is_same && old.addresses.is_empty() {
                return Ok(old);
            }
            self.check_replaceable(name, &old, call).await?;
        }
        self.forget(name).await?;
        self.register(name, call, Vec::new(), Some(Box::new(delegation.clone())))
    }

    /// Takes the addresses that a delegated plugin has given.
    pub(super) async fn add_leased(
        &mut self,
        name: &str,
        call: &AddCall,
        addresses: &[IpAddr],
    ) -> Result<Attached, Failure> {
        let announced = self.model.attachments.get(name).cloned();
        let announced = announced.filter(|old| is_repeated(old, call) && old.delegation.is_some());
        let Some(announced) = announced else {
            let details = format!("{} is lost", self.store.path(name).display());
            return Err(failure::try_again("a lease was not announced", &details));
        };
        for address in addresses {
            self.check_leased(*address)?;
            self.take_from_the_dead(name, *address).await?;
        }
        let attached = Attached { addresses: addresses.to_vec(), ..announced };
        self.store.put(name, &attached).map_err(|error| failure::store(&error))?;
        self.model.attachments.insert(name.to_owned(), attached.clone());
        for address in addresses {
            self.ipam.reserve(*address);
        }
        Ok(attached)
    }

    /// Whether an address is in no network that has a route to `podwire0`.
    pub(super) fn has_routes_of_its_own(&self, attached: &Attached) -> bool {
        let own = self.model.own().map(|own| own.pod_cidrs.as_slice()).unwrap_or_default();
        let is_own = |address: &IpAddr| own.iter().any(|cidr| cidr.contains(address));
        !attached.addresses.iter().all(is_own)
    }

    /// Looks whether the kernel has the routes to addresses that no network covers.
    pub(super) async fn check_routes(&mut self, attached: &Attached) -> Result<(), Failure> {
        let observed = self.observe().await.map_err(|error| failure::kernel(&error))?;
        let is_missing = |address: &&IpAddr| {
            let wanted = self.compiled.state.routes.get(&IpNet::from(**address));
            wanted.is_some() && observed.state.routes.get(&IpNet::from(**address)) != wanted
        };
        let Some(address) = attached.addresses.iter().find(is_missing) else { return Ok(()) };
        let of_it = self.failures.iter().find(|failure| failure.contains(&address.to_string()));
        let why = of_it.or(self.failures.first()).map_or("it is not there", String::as_str);
        Err(failure::route(*address, why))
    }

    /// Takes addresses back that cannot be reached, and with them their entries and routes; that there is a
    /// lease stays known.
    pub(super) async fn take_back(&mut self, name: &str, attached: &Attached) {
        // The plugin has its failure already; what fails here the sweep does again.
        let _ = self.remove_entries(attached).await;
        let announced = Attached { addresses: Vec::new(), ..attached.clone() };
        let _ = self.store.put(name, &announced);
        self.model.attachments.insert(name.to_owned(), announced);
        for address in &attached.addresses {
            self.ipam.free(*address);
        }
        self.reconcile().await;
    }

    /// Refuses what is another's by configuration, or no address of one interface.
    fn check_leased(&self, address: IpAddr) -> Result<(), Failure> {
        let refuse = |why: String| Err(failure::lease(&format!("{address} {why}")));
        if !is_of_one_interface(address) {
            return refuse("is no address that a pod can have".to_owned());
        }
        for node in &self.model.nodes {
            if node.addresses.contains(&address) {
                return refuse(format!("is an address of the node {}", node.name));
            }
        }
        for peer in self.model.peers() {
            if let Some(cidr) = peer.pod_cidrs.iter().find(|cidr| cidr.contains(&address)) {
                return refuse(format!("is in {cidr}, which is the node {}'s", peer.name));
            }
        }
        match self.ipam.reserved(address) {
            Some(error) => refuse(format!("is refused: {error}")),
            None => Ok(()),
        }
    }

    /// A plugin gives an address anew as soon as its old owner has given it back: then the interface of
    /// that is gone, though the agent may not have been told.
    async fn take_from_the_dead(&mut self, name: &str, address: IpAddr) -> Result<(), Failure> {
        let in_use = || failure::ipam(&crate::ipam::IpamError::InUse(address));
        let orphaned = self.model.orphans.values().flatten();
        if orphaned.into_iter().any(|(key, _)| Addr::from(*key).to_ip() == address) {
            return Err(in_use());
        }
        let owner = self.model.attachments.iter().find(|(other, attached)| {
            other.as_str() != name && attached.addresses.contains(&address)
        });
        let Some((other, mut owner)) = owner.map(|(other, owner)| (other.clone(), owner.clone()))
        else {
            return Ok(());
        };
        if owner.delegation.is_none() || self.is_live(&other, &owner).await? {
            return Err(in_use());
        }
        owner.addresses.retain(|its| *its != address);
        self.store.put(&other, &owner).map_err(|error| failure::store(&error))?;
        self.model.attachments.insert(other, owner);
        Ok(())
    }
}

/// Neither of a group, of the host itself, of every link, nor an alias of another.
fn is_of_one_interface(address: IpAddr) -> bool {
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let is_of_links = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !is_special && !is_of_links
}
