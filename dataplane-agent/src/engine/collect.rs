//! GC: removes what the runtime does not name any more.

use std::collections::BTreeSet;
use std::time::Duration;

use cni_shim::names::{Attachment, network_of_alias};
use cni_shim::protocol::{Collected, Failure, GcCall};
use tokio::time::{Instant, timeout_at};

use super::Engine;
use super::leases::Returns;
use super::sweep::Locks;
use crate::failure;
use crate::kernel::{Action, Kernel, Link, Observed};
use crate::model::{Model, is_pod_interface};

/// A call is answered within ten seconds; what is left then is for the next GC.
const TIME_MAX: Duration = Duration::from_secs(8);

impl<K: Kernel> Engine<K> {
    /// Removes all attachments of a network but the valid ones.
    ///
    /// 1. Lock those that are known. An ADD that runs now keeps its lock: it is newer than the list.
    /// 2. Look at the kernel for interfaces and pins that nobody knows, and lock them.
    /// 3. Look again: what an ADD has given up or taken away meanwhile is no longer there.
    /// 4. Remove interfaces, then entries, files and addresses.
    /// 5. Remove the pins, while the locks are held.
    ///
    /// Whatever fails, the rest is done. Leases are on their way back then.
    pub(super) async fn collect(&mut self, call: &GcCall) -> Result<(Collected, Returns), Failure> {
        let deadline = Instant::now() + TIME_MAX;
        let valid: BTreeSet<String> = call.valid.iter().map(Attachment::host_ifname).collect();
        let mut collected = Collected { removed: 0, failures: Vec::new() };
        let mut locks = Locks::new();
        let known = known(&self.model, &call.network, &valid);
        let (mut stale, busy) = self.lock(&mut locks, known, &mut collected); // 1
        let observed = self.look(deadline).await?;
        let unknown = unknown(&self.model, &observed, &call.network, &valid);
        let (unknown_stale, _) = self.lock(&mut locks, unknown, &mut collected); // 2
        let observed = self.look(deadline).await?;
        let still = self::unknown(&self.model, &observed, &call.network, &valid); // 3
        stale.extend(unknown_stale.intersection(&still).cloned());
        // The last step of ADD sets the interface up: before it, an ADD is at work.
        let in_use = |name: &&String| observed.interfaces.get(*name).is_some_and(|link| link.up);
        collected.failures.extend(busy.iter().filter(in_use).map(|name| busy_failure(name)));

        let mut released = BTreeSet::new();
        let mut returning = BTreeSet::new();
        for name in &stale {
            let removal = self.remove_attachment(name, &observed);
            match timeout_at(deadline, removal).await {
                Ok(Ok(is_freed)) => {
                    returning.extend((!is_freed).then(|| name.clone()));
                    released.insert(name.clone());
                }
                Ok(Err(error)) => collected.failures.push(error),
                Err(_) => {
                    let left = stale.len().saturating_sub(released.len());
                    collected.failures.push(late_failure(left));
                    break;
                }
            }
        }
        let pinned = self.remove_pins(&released, deadline, &mut collected).await; // 5
        drop(locks);
        let gone = released.difference(&returning).filter(|name| !pinned.contains(*name)).count();
        collected.removed = u64::try_from(gone).unwrap_or(u64::MAX);
        tracing::info!(
            network = call.network,
            removed = collected.removed,
            returning = returning.len(),
            failures = collected.failures.len(),
            "GC"
        );
        Ok((collected, self.leases.watch(returning, deadline)))
    }

    async fn look(&mut self, deadline: Instant) -> Result<Observed, Failure> {
        match timeout_at(deadline, self.observe()).await {
            Ok(observed) => observed.map_err(|error| failure::kernel(&error)),
            Err(_) => Err(failure::try_again(
                "nothing is collected: GC again",
                &format!("the kernel did not answer within {} s", TIME_MAX.as_secs()),
            )),
        }
    }

    /// Those that are left.
    async fn remove_pins(
        &mut self,
        released: &BTreeSet<String>,
        deadline: Instant,
        collected: &mut Collected,
    ) -> BTreeSet<String> {
        self.model.released.clone_from(released);
        let is_late = timeout_at(deadline, self.reconcile()).await.is_err();
        self.model.released.clear();
        let why = if is_late { Some("the time is up") } else { None };
        let why = why.or(self.failures.first().map(String::as_str)).unwrap_or_default();
        let is_pinned =
            |name: &&String| self.observed.state.links.keys().any(|(link, _)| link == *name);
        let left = released.iter().filter(|name| is_late || is_pinned(name));
        left.inspect(|name| collected.failures.push(pins_failure(name, why))).cloned().collect()
    }

    /// 4; false if its lease is only on its way back.
    async fn remove_attachment(
        &mut self,
        name: &str,
        observed: &Observed,
    ) -> Result<bool, Failure> {
        let renamed =
            self.model.attachments.get(name).and_then(|attached| observed.renamed(attached));
        let links = [observed.interfaces.get(name), renamed];
        for link in links.into_iter().flatten() {
            let action = Action::RemoveDevice { name: link.name.clone() };
            self.apply(&action).await.map_err(|error| failure::kernel(&error))?;
        }
        if self.free_lease(name) {
            return Ok(false);
        }
        self.forget(name).await.map(|()| true)
    }

    /// Those whose locks were free, and the others.
    fn lock(
        &self,
        locks: &mut Locks,
        names: BTreeSet<String>,
        collected: &mut Collected,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        names.into_iter().partition(|name| {
            self.try_lock(locks, name).unwrap_or_else(|error| {
                collected.failures.push(failure::store(&error));
                false
            })
        })
    }
}

/// Attachments of the network.
fn known(model: &Model, network: &str, valid: &BTreeSet<String>) -> BTreeSet<String> {
    let of_network = model.attachments.iter().filter(|(_, attached)| attached.network == network);
    of_network.map(|(name, _)| name).filter(|name| !valid.contains(*name)).cloned().collect()
}

/// What an ADD left that was killed before it asked, or whose file is lost: interfaces that say that they
/// are of the network, those that nobody has named yet, and pins and entries without an interface.
fn unknown(
    model: &Model,
    observed: &Observed,
    network: &str,
    valid: &BTreeSet<String>,
) -> BTreeSet<String> {
    let is_ours = |link: &&Link| match link.alias.as_str() {
        "" => !link.up,
        alias => network_of_alias(alias) == Some(network),
    };
    let interfaces = observed.interfaces.values().filter(is_ours).map(|link| &link.name);
    let pinned = observed.state.links.keys().map(|(name, _)| name);
    let lone = pinned.chain(model.orphans.keys());
    let lone = lone.filter(|name| !observed.interfaces.contains_key(*name));
    interfaces
        .chain(lone)
        .filter(|name| is_pod_interface(name) && !valid.contains(*name))
        .filter(|name| !model.attachments.contains_key(*name))
        .cloned()
        .collect()
}

fn busy_failure(name: &str) -> Failure {
    failure::try_again(
        &format!("{name} is left: another call works at it"),
        "its lock, which it may share with others, is held",
    )
}

fn late_failure(left: usize) -> Failure {
    failure::try_again(
        &format!("{left} attachments are left: GC again"),
        &format!("not all could be removed within {} s", TIME_MAX.as_secs()),
    )
}

fn pins_failure(name: &str, why: &str) -> Failure {
    failure::try_again(&format!("the pins of {name} are left"), why)
}
