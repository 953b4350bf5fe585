//! Hands out the addresses of this node's pod networks. Pure: no file, no clock.

mod pool;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use self::pool::Pool;

/// From this share of used addresses on, a pool is a problem (per cent).
const WARN_PERCENT: u128 = 80;

/// Why an ADD gets no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// No address of a family is free.
    #[error("all {capacity} addresses of {cidrs} are in use")]
    Exhausted {
        /// The networks that are full.
        cidrs: String,
        /// How many addresses they have for pods.
        capacity: u128,
    },
    /// An address is asked for that is in no pool.
    #[error("{address} is in none of the pod networks of this node ({cidrs})")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The networks.
        cidrs: String,
    },
    /// An address is asked for that no pod can have.
    #[error("{address} is {what} of {cidr}: no pod can have it")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
        /// In which network.
        cidr: IpNet,
    },
    /// An address is asked for that is another's.
    #[error("{0} is in use")]
    InUse(IpAddr),
    /// More than one address of a family is asked for.
    #[error("{0} and {1} are of one family, and a pod has one address of each")]
    Twice(IpAddr, IpAddr),
}

/// The pools of a node.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    pools: Vec<Pool>,
    /// Addresses in use that are in no pool: of pods older than the present pod networks, and of
    /// delegated plugins.
    strangers: BTreeSet<IpAddr>,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The network.
    pub cidr: IpNet,
    /// Addresses that pods have.
    pub used: usize,
    /// Addresses that pods can have.
    pub capacity: u128,
}

impl Usage {
    /// Whether a warning is due.
    pub fn is_high(&self) -> bool {
        (self.used as u128).saturating_mul(100) >= self.capacity.saturating_mul(WARN_PERCENT)
    }
}

impl Ipam {
    /// The pools of these networks on a node that had no pods since it started.
    pub fn new(cidrs: &[IpNet]) -> Self {
        Self { pools: cidrs.iter().map(Pool::new).collect(), strangers: BTreeSet::new() }
    }

    /// The pools of these networks after an earlier agent, with these addresses in use, each with the
    /// generation of its owner.
    ///
    /// Nobody knows what was freed a moment ago. Addresses go up, so most of it is close behind the
    /// youngest that is in use: the pool goes on far from there. Without any it goes on anywhere.
    pub fn resume(
        cidrs: &[IpNet],
        used: impl IntoIterator<Item = (IpAddr, u64)>,
        anywhere: u64,
    ) -> Self {
        let mut ipam = Self::new(cidrs);
        let mut used: Vec<(IpAddr, u64)> = used.into_iter().collect();
        used.sort_by_key(|(_, generation)| std::cmp::Reverse(*generation));
        for pool in &mut ipam.pools {
            let youngest = used.iter().find(|(address, _)| pool.contains(*address));
            pool.go_on(youngest.map(|(address, _)| *address), anywhere);
        }
        for (address, _) in used {
            ipam.reserve(address);
        }
        ipam
    }

    /// Changes the networks and keeps what is in use.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet]) {
        if self.pools.iter().map(Pool::cidr).eq(cidrs.iter().copied()) {
            return;
        }
        let mut old = std::mem::take(self);
        let mut used = std::mem::take(&mut old.strangers);
        for cidr in cidrs {
            let kept = old.pools.iter().position(|pool| pool.cidr() == *cidr);
            self.pools.push(kept.map_or_else(|| Pool::new(cidr), |at| old.pools.swap_remove(at)));
        }
        used.extend(old.pools.into_iter().flat_map(Pool::into_used));
        for address in used {
            self.reserve(address);
        }
    }

    /// Marks an address as used.
    pub fn reserve(&mut self, address: IpAddr) {
        match self.pools.iter_mut().find(|pool| pool.contains(address)) {
            Some(pool) => pool.reserve(address),
            None => {
                self.strangers.insert(address);
            }
        }
    }

    /// Takes one address per family of the pools, IPv4 first: the one that is asked for, else the one
    /// that has been free for longest. Takes none if it cannot take all.
    ///
    /// # Errors
    /// When a family has no free address, or one that is asked for cannot be had.
    pub fn allocate(&mut self, asked: &[IpAddr]) -> Result<Vec<IpAddr>, IpamError> {
        self.check(asked)?;
        let mut taken = Vec::new();
        for ipv4 in [true, false] {
            if !self.pools.iter().any(|pool| pool.is_ipv4() == ipv4) {
                continue;
            }
            if let Some(address) = asked.iter().find(|address| address.is_ipv4() == ipv4) {
                self.reserve(*address);
                taken.push(*address);
                continue;
            }
            let mut pools = self.pools.iter_mut().filter(|pool| pool.is_ipv4() == ipv4);
            match pools.find_map(Pool::take) {
                Some(address) => taken.push(address),
                None => {
                    for address in taken {
                        self.give_back(address);
                    }
                    return Err(self.exhausted(ipv4));
                }
            }
        }
        Ok(taken)
    }

    /// Takes an address back; it is the last to be handed out again.
    pub fn free(&mut self, address: IpAddr) {
        self.strangers.remove(&address);
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.has(address)) {
            pool.free(address);
        }
    }

    /// How full each pool is.
    pub fn usage(&self) -> Vec<Usage> {
        self.pools.iter().map(Pool::usage).collect()
    }

    fn check(&self, asked: &[IpAddr]) -> Result<(), IpamError> {
        for (at, address) in asked.iter().copied().enumerate() {
            let mut before = asked.iter().copied().take(at);
            if let Some(other) = before.find(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(IpamError::Twice(other, address));
            }
            let Some(pool) = self.pools.iter().find(|pool| pool.contains(address)) else {
                let cidrs: Vec<String> = self.pools.iter().map(|p| p.cidr().to_string()).collect();
                return Err(IpamError::Outside { address, cidrs: cidrs.join(", ") });
            };
            if let Some(error) = self.reserved(address) {
                return Err(error);
            }
            if pool.has(address) {
                return Err(IpamError::InUse(address));
            }
        }
        Ok(())
    }

    /// Why no pod can have an address of the pools; none for all others.
    pub fn reserved(&self, address: IpAddr) -> Option<IpamError> {
        let pool = self.pools.iter().find(|pool| pool.contains(address))?;
        let what = pool.reserved(address)?;
        Some(IpamError::Reserved { address, what, cidr: pool.cidr() })
    }

    /// Undoes the last take: the address was never seen, so it may be the next.
    fn give_back(&mut self, address: IpAddr) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.has(address)) {
            pool.give_back(address);
        }
    }

    fn exhausted(&self, ipv4: bool) -> IpamError {
        let pools = || self.pools.iter().filter(|pool| pool.is_ipv4() == ipv4);
        let cidrs: Vec<String> = pools().map(|pool| pool.cidr().to_string()).collect();
        let capacity = pools().map(Pool::capacity).fold(0, u128::saturating_add);
        IpamError::Exhausted { cidrs: cidrs.join(", "), capacity }
    }
}

#[cfg(test)]
mod tests;
