//! One pod network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Usage;
use crate::model::gateway;

/// With so many freed addresses waiting, the oldest of them is the next, also where a large network has
/// some that were never used: their memory is bounded.
const FREED_MAX: usize = 1 << 14;

/// Every address for pods is in use, or freed, or the cursor has yet to come to it.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    cidr: IpNet,
    first: u128,
    last: u128,
    /// Goes round once. What it has passed is used or freed.
    cursor: u128,
    /// How far it has to go.
    ahead: u128,
    used: BTreeSet<IpAddr>,
    freed: Freed,
}

impl Pool {
    pub(super) fn new(cidr: &IpNet) -> Self {
        let first = number(gateway(cidr)).saturating_add(1);
        let last = match cidr {
            IpNet::V4(v4) => u128::from(u32::from(v4.broadcast())).saturating_sub(1),
            IpNet::V6(v6) => u128::from(v6.broadcast()),
        };
        let mut pool = Self {
            cidr: cidr.trunc(),
            first,
            last,
            cursor: first,
            ahead: 0,
            used: BTreeSet::new(),
            freed: Freed::default(),
        };
        pool.ahead = pool.capacity();
        pool
    }

    /// Puts the cursor far from what was freed lately, by the youngest address that is in use.
    pub(super) fn go_on(&mut self, youngest: Option<IpAddr>, anywhere: u64) {
        let capacity = self.capacity();
        if capacity == 0 {
            return;
        }
        let offset = match youngest {
            Some(address) => {
                let at = number(address).saturating_sub(self.first);
                at.saturating_add(1).saturating_add(capacity / 4)
            }
            None => anywhere.into(),
        };
        self.cursor = self.first.saturating_add(offset % capacity);
    }

    pub(super) fn cidr(&self) -> IpNet {
        self.cidr
    }

    pub(super) fn is_ipv4(&self) -> bool {
        matches!(self.cidr, IpNet::V4(_))
    }

    pub(super) fn capacity(&self) -> u128 {
        if self.first > self.last { 0 } else { (self.last - self.first).saturating_add(1) }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { cidr: self.cidr, used: self.used.len(), capacity: self.capacity() }
    }

    /// Whether an address is in the network.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address)
    }

    /// Whether an address is in use.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.used.contains(&address)
    }

    /// Why no pod can have an address of the network.
    pub(super) fn reserved(&self, address: IpAddr) -> Option<&'static str> {
        if (self.first..=self.last).contains(&number(address)) {
            None
        } else if address == self.cidr.network() {
            Some("the address of the network")
        } else if address == gateway(&self.cidr) {
            Some("the node's own address")
        } else {
            Some("the broadcast address")
        }
    }

    pub(super) fn into_used(self) -> BTreeSet<IpAddr> {
        self.used
    }

    pub(super) fn reserve(&mut self, address: IpAddr) {
        self.used.insert(address);
        self.freed.remove(address);
    }

    /// Takes what has been free for longest.
    pub(super) fn take(&mut self) -> Option<IpAddr> {
        let address = if self.freed.len() >= FREED_MAX {
            self.freed.pop()
        } else {
            self.take_fresh().or_else(|| self.freed.pop())
        }?;
        self.used.insert(address);
        Some(address)
    }

    pub(super) fn free(&mut self, address: IpAddr) {
        if self.used.remove(&address) && self.reserved(address).is_none() {
            self.freed.push(address);
        }
    }

    /// As [`Self::free`], but it may be the next.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if self.used.remove(&address) && self.reserved(address).is_none() {
            self.freed.push_front(address);
        }
    }

    fn take_fresh(&mut self) -> Option<IpAddr> {
        while self.ahead > 0 {
            let address = self.address(self.cursor);
            self.ahead -= 1;
            self.cursor = if self.cursor >= self.last { self.first } else { self.cursor + 1 };
            if !self.used.contains(&address) && !self.freed.contains(address) {
                return Some(address);
            }
        }
        None
    }

    fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if self.is_ipv4() => IpAddr::V4(number.into()),
            Ok(_) | Err(_) => IpAddr::V6(number.into()),
        }
    }
}

/// Freed addresses in their order, found by address too.
#[derive(Clone, Debug, Default)]
struct Freed {
    addresses: BTreeMap<i64, IpAddr>,
    places: BTreeMap<IpAddr, i64>,
}

impl Freed {
    fn len(&self) -> usize {
        self.addresses.len()
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.places.contains_key(&address)
    }

    fn push(&mut self, address: IpAddr) {
        let last = self.addresses.last_key_value().map_or(0, |(place, _)| *place);
        self.put(last.saturating_add(1), address);
    }

    fn push_front(&mut self, address: IpAddr) {
        let first = self.addresses.first_key_value().map_or(0, |(place, _)| *place);
        self.put(first.saturating_sub(1), address);
    }

    fn put(&mut self, place: i64, address: IpAddr) {
        self.remove(address);
        self.addresses.insert(place, address);
        self.places.insert(address, place);
    }

    fn pop(&mut self) -> Option<IpAddr> {
        let (_, address) = self.addresses.pop_first()?;
        self.places.remove(&address);
        Some(address)
    }

    fn remove(&mut self, address: IpAddr) {
        if let Some(place) = self.places.remove(&address) {
            self.addresses.remove(&place);
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}
