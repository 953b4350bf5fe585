//! Hands out the addresses of this node's pod networks. Pure: no file, no clock.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::gateway;

/// An address that was freed stays unused while a pool has others, and at most so many wait.
const FREED_MAX: usize = 1 << 16;
/// From this share of used addresses on, a pool is a problem (per cent).
const WARN_PERCENT: u128 = 80;

/// No address of a family is free.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {capacity} addresses of {cidrs} are in use")]
pub struct Exhausted {
    /// The networks that are full.
    pub cidrs: String,
    /// How many addresses they have for pods.
    pub capacity: u128,
}

/// The pools of a node.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    pools: Vec<Pool>,
    /// Addresses in use that are in no pool: of pods older than the present pod networks.
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
    /// The pools of these networks, with these addresses in use.
    pub fn new(cidrs: &[IpNet], used: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut ipam =
            Self { pools: cidrs.iter().map(Pool::new).collect(), strangers: BTreeSet::new() };
        for address in used {
            ipam.reserve(address);
        }
        ipam
    }

    /// Changes the networks and keeps what is in use.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet]) {
        if self.pools.iter().map(|pool| pool.cidr).eq(cidrs.iter().copied()) {
            return;
        }
        let mut old = std::mem::take(self);
        let mut used = std::mem::take(&mut old.strangers);
        for cidr in cidrs {
            let kept = old.pools.iter().position(|pool| pool.cidr == *cidr);
            self.pools.push(kept.map_or_else(|| Pool::new(cidr), |at| old.pools.swap_remove(at)));
        }
        used.extend(old.pools.into_iter().flat_map(|pool| pool.used));
        for address in used {
            self.reserve(address);
        }
    }

    /// Marks an address as used.
    pub fn reserve(&mut self, address: IpAddr) {
        match self.pools.iter_mut().find(|pool| pool.cidr.contains(&address)) {
            Some(pool) => pool.reserve(address),
            None => {
                self.strangers.insert(address);
            }
        }
    }

    /// Takes one address per family of the pools, IPv4 first. Takes none if a family has none.
    ///
    /// # Errors
    /// When a family has no free address.
    pub fn allocate(&mut self) -> Result<Vec<IpAddr>, Exhausted> {
        let mut taken = Vec::new();
        for ipv4 in [true, false] {
            if !self.pools.iter().any(|pool| pool.is_ipv4() == ipv4) {
                continue;
            }
            let next =
                self.pools.iter_mut().filter(|pool| pool.is_ipv4() == ipv4).find_map(Pool::take);
            match next {
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
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.used.contains(&address)) {
            pool.used.remove(&address);
            pool.freed.push_back(address);
        }
    }

    /// How full each pool is.
    pub fn usage(&self) -> Vec<Usage> {
        self.pools.iter().map(Pool::usage).collect()
    }

    /// Undoes the last take: the address was never seen, so it may be the next.
    fn give_back(&mut self, address: IpAddr) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.used.contains(&address)) {
            pool.used.remove(&address);
            pool.freed.push_front(address);
        }
    }

    fn exhausted(&self, ipv4: bool) -> Exhausted {
        let pools = || self.pools.iter().filter(|pool| pool.is_ipv4() == ipv4);
        let cidrs: Vec<String> = pools().map(|pool| pool.cidr.to_string()).collect();
        let capacity = pools().map(Pool::capacity).fold(0, u128::saturating_add);
        Exhausted { cidrs: cidrs.join(", "), capacity }
    }
}

#[derive(Clone, Debug)]
struct Pool {
    cidr: IpNet,
    first: u128,
    last: u128,
    /// Never handed out since the start, unless it is in `used`.
    next: u128,
    used: BTreeSet<IpAddr>,
    /// Oldest first.
    freed: VecDeque<IpAddr>,
}

impl Pool {
    fn new(cidr: &IpNet) -> Self {
        let first = number(gateway(cidr)).saturating_add(1);
        let last = match cidr {
            IpNet::V4(v4) => u128::from(u32::from(v4.broadcast())).saturating_sub(1),
            IpNet::V6(v6) => u128::from(v6.broadcast()),
        };
        let (used, freed) = (BTreeSet::new(), VecDeque::new());
        Self { cidr: cidr.trunc(), first, last, next: first, used, freed }
    }

    fn is_ipv4(&self) -> bool {
        matches!(self.cidr, IpNet::V4(_))
    }

    fn capacity(&self) -> u128 {
        if self.first > self.last { 0 } else { (self.last - self.first).saturating_add(1) }
    }

    fn usage(&self) -> Usage {
        Usage { cidr: self.cidr, used: self.used.len(), capacity: self.capacity() }
    }

    fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if self.is_ipv4() => IpAddr::V4(number.into()),
            Ok(_) | Err(_) => IpAddr::V6(number.into()),
        }
    }

    fn reserve(&mut self, address: IpAddr) {
        self.used.insert(address);
        self.freed.retain(|freed| *freed != address);
        // Goes on behind the highest, so that an agent that starts again does not hand out at once
        // what was freed a moment ago.
        self.next = self.next.max(number(address).saturating_add(1));
    }

    fn take(&mut self) -> Option<IpAddr> {
        if self.used.len() as u128 >= self.capacity() {
            return None;
        }
        let address = if self.freed.len() >= FREED_MAX {
            self.freed.pop_front()
        } else {
            self.take_fresh().or_else(|| self.freed.pop_front()).or_else(|| self.refill())
        }?;
        self.used.insert(address);
        Some(address)
    }

    fn take_fresh(&mut self) -> Option<IpAddr> {
        while self.next <= self.last {
            let address = self.address(self.next);
            self.next = self.next.checked_add(1)?;
            if !self.used.contains(&address) {
                return Some(address);
            }
        }
        None
    }

    /// Collects what was skipped when the agent started behind the highest used address.
    fn refill(&mut self) -> Option<IpAddr> {
        let free = (self.first..=self.last)
            .map(|number| self.address(number))
            .filter(|address| !self.used.contains(address))
            .take(FREED_MAX)
            .collect();
        self.freed = free;
        self.freed.pop_front()
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cidrs(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|cidr| cidr.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn skips_network_gateway_and_broadcast() {
        let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]), []);
        let mut got: Vec<String> = Vec::new();
        while let Ok(addresses) = ipam.allocate() {
            got.push(addresses[0].to_string());
        }
        assert_eq!(got, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        let error = ipam.allocate().unwrap_err();
        assert_eq!(error.to_string(), "all 5 addresses of 10.0.0.0/29 are in use");
    }

    #[test]
    fn one_of_each_family_or_none() {
        let mut ipam = Ipam::new(&cidrs(&["fd00::/64", "10.0.0.0/30"]), []);
        assert_eq!(ipam.allocate().unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
        assert!(ipam.allocate().is_err());
        assert_eq!(ipam.usage()[0].used, 1, "the IPv6 pool is untouched");
        let mut ipam =
            Ipam::new(&cidrs(&["10.0.0.0/24", "fd00::/126"]), [ip("fd00::2"), ip("fd00::3")]);
        assert!(ipam.allocate().is_err());
        assert_eq!(ipam.usage()[0].used, 0, "the IPv4 address was given back");
    }

    #[test]
    fn reuses_the_oldest_freed_last() {
        let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]), []);
        ipam.allocate().unwrap();
        ipam.allocate().unwrap();
        ipam.free(ip("10.0.0.3"));
        ipam.free(ip("10.0.0.2"));
        let next: Vec<IpAddr> = (0..5).map(|_| ipam.allocate().unwrap()[0]).collect();
        let want = ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"].map(ip);
        assert_eq!(next, want);
    }

    #[test]
    fn starts_behind_the_highest_and_comes_round() {
        let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]), [ip("10.0.0.4")]);
        let next: Vec<IpAddr> = (0..4).map(|_| ipam.allocate().unwrap()[0]).collect();
        assert_eq!(next, ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"].map(ip));
        assert!(ipam.allocate().is_err());
    }

    #[test]
    fn networks_change_and_pods_keep_their_addresses() {
        let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]), []);
        let first = ipam.allocate().unwrap()[0];
        ipam.set_cidrs(&cidrs(&["10.1.0.0/29"]));
        assert_eq!(ipam.allocate().unwrap(), [ip("10.1.0.2")]);
        ipam.set_cidrs(&cidrs(&["10.0.0.0/29", "10.1.0.0/29"]));
        assert_eq!(ipam.usage().iter().map(|u| u.used).collect::<Vec<_>>(), [1, 1]);
        ipam.free(first);
        assert_eq!(ipam.usage()[0].used, 0);
    }

    #[test]
    fn warns_from_four_fifths() {
        let usage = |used| Usage { cidr: "10.0.0.0/24".parse().unwrap(), used, capacity: 10 };
        assert!(!usage(7).is_high() && usage(8).is_high());
    }

    proptest! {
        #[test]
        fn never_twice_and_never_reserved(steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/28", "fd00::/124"]), []);
            let mut live: Vec<Vec<IpAddr>> = Vec::new();
            for add in steps {
                if add {
                    if let Ok(new) = ipam.allocate() {
                        for address in &new {
                            prop_assert!(live.iter().all(|other| !other.contains(address)));
                            let text = address.to_string();
                            prop_assert!(!["10.0.0.0", "10.0.0.1", "10.0.0.15", "fd00::", "fd00::1"]
                                .contains(&text.as_str()));
                        }
                        live.push(new);
                    } else {
                        prop_assert_eq!(live.len(), 13);
                    }
                } else if !live.is_empty() {
                    for address in live.remove(0) {
                        ipam.free(address);
                    }
                }
            }
        }
    }
}
