//! `pw_pods`, and in step with it `pw_near`, where programs look first.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, MapData};
use cni_shim::names::Pins;
use dataplane_core::abi::names::{MAP_NEAR, MAP_PODS, NEAR, PODS_MAX};
use dataplane_core::abi::{Addr, Mac, Near, PodEntry};
use dataplane_core::ip::Ip;
use dataplane_core::near::place;

use super::error::Context as _;
use super::map::{open, unless_missing};
use crate::kernel::{AddrKey, KernelError};

/// Nobody's place.
const NOBODY: Near = Near {
    address: Addr::UNSPECIFIED,
    entry: PodEntry {
        ifindex: 0,
        kind: PodEntry::NOBODY,
        mac: Mac::new([0; 6]),
        gateway_mac: Mac::new([0; 6]),
        reserved: 0,
        generation: 0,
    },
};

/// Both maps.
pub(super) struct Pods {
    hash: HashMap<MapData, Addr, PodEntry>,
    near: Array<MapData, Near>,
    /// Addresses whose place another has: they are in the hash alone.
    displaced: BTreeSet<AddrKey>,
}

impl Pods {
    /// Opens the pins.
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let hash = open(pins, MAP_PODS)?.try_into().context(|| MAP_PODS.to_owned())?;
        let near = open(pins, MAP_NEAR)?.try_into().context(|| MAP_NEAR.to_owned())?;
        Ok(Self { hash, near, displaced: BTreeSet::new() })
    }

    /// Brings `pw_near` in step: an agent may have ended between its two writes, or had other places.
    pub(super) fn bring_in_step(&mut self) -> Result<(), KernelError> {
        let entries = self.read()?;
        for at in 0..NEAR as u32 {
            let there = self.at(at)?;
            let is_right =
                entries.contains_key(&there.address.into()) && place_of(there.address) == at;
            if there != NOBODY && !is_right {
                self.set(at, NOBODY)?;
            }
        }
        self.read().map(|_| ())
    }

    /// Whether every address has its place.
    pub(super) fn are_all_near(&self) -> bool {
        self.displaced.is_empty()
    }

    /// What is in the hash; places that say something else are put right.
    pub(super) fn read(&mut self) -> Result<BTreeMap<AddrKey, PodEntry>, KernelError> {
        let entries = self.hash.iter().map(|entry| entry.map(|(addr, pod)| (addr.into(), pod)));
        let entries: BTreeMap<AddrKey, PodEntry> =
            entries.collect::<Result<_, _>>().context(|| format!("read {MAP_PODS}"))?;
        for (key, entry) in &entries {
            self.settle(Addr::from(*key), entry)?;
        }
        Ok(entries)
    }

    pub(super) fn put(&mut self, address: Addr, entry: &PodEntry) -> Result<(), KernelError> {
        self.hash
            .insert(address, entry, 0)
            .context(|| format!("put {} into {MAP_PODS} (it holds {PODS_MAX})", address.to_ip()))?;
        self.settle(address, entry)
    }

    /// Compare-and-delete. There is no race between the two: the agent is the only writer.
    pub(super) fn remove(&mut self, address: Addr, generation: u64) -> Result<(), KernelError> {
        let what = || format!("remove {} from {MAP_PODS}", address.to_ip());
        match self.hash.get(&address, 0) {
            Ok(entry) if entry.generation != generation => return Ok(()),
            Ok(_) => {}
            Err(error) => unless_missing(Err(error)).context(what)?,
        }
        self.displaced.remove(&address.into());
        let at = place_of(address);
        let there = self.at(at)?;
        if there.address == address && there.entry.generation == generation {
            self.set(at, NOBODY)?;
        }
        unless_missing(self.hash.remove(&address)).context(what)
    }

    /// Gives an address its place, unless another has it.
    ///
    /// A new one is written last, and with it the kind, behind all else of the entry, so that no program reads half of
    /// it. What changes is written at once: in between the pod would be nowhere.
    fn settle(&mut self, address: Addr, entry: &PodEntry) -> Result<(), KernelError> {
        let at = place_of(address);
        let there = self.at(at)?;
        let wanted = Near { address, entry: *entry };
        if there == wanted {
            return Ok(());
        }
        if there.address != address && there.address != Addr::UNSPECIFIED {
            self.displaced.insert(address.into());
            return Ok(());
        }
        if there.address == Addr::UNSPECIFIED {
            let entry = PodEntry { kind: PodEntry::NOBODY, ..*entry };
            self.set(at, Near { address: Addr::UNSPECIFIED, entry })?;
        }
        self.set(at, wanted)?;
        self.displaced.remove(&address.into());
        Ok(())
    }

    fn at(&self, at: u32) -> Result<Near, KernelError> {
        self.near.get(&at, 0).context(|| format!("read {MAP_NEAR}"))
    }

    fn set(&mut self, at: u32, near: Near) -> Result<(), KernelError> {
        self.near.set(at, near, 0).context(|| format!("write {MAP_NEAR}"))
    }
}

fn place_of(address: Addr) -> u32 {
    place(&Ip::from(&address)) as u32
}
