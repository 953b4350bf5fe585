//! The pinned maps: what the agent reads and writes in them.

use std::collections::BTreeMap;
use std::io;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use cni_shim::names::Pins;
use dataplane_core::abi::names::{MAP_CONFIG, MAP_NODES, MAP_STATS};
use dataplane_core::abi::{Addr, Config, Counter, PodEntry, Stats};
use ipnet::IpNet;

use super::error::Context as _;
use super::nodes::Nodes;
use super::pods::Pods;
use crate::kernel::{AddrKey, KernelError, NodeTable};

/// The maps that the agent writes or reads.
pub(super) struct Maps {
    pods: Pods,
    nodes: Nodes,
    config: Array<MapData, Config>,
    stats: Counters,
}

/// What the programs count, to be read only.
pub(super) struct Counters(PerCpuArray<MapData, Stats>);

impl Maps {
    /// Opens the pins. aya compares the sizes with those that the kernel reports.
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            pods: Pods::open(pins)?,
            nodes: Nodes(open(pins, MAP_NODES)?.try_into().context(|| MAP_NODES.to_owned())?),
            config: open(pins, MAP_CONFIG)?.try_into().context(|| MAP_CONFIG.to_owned())?,
            stats: Counters::open(pins)?,
        })
    }

    /// The version of all layouts, as the pinned configuration has it; 0: nobody has written one.
    pub(super) fn version(pins: &Pins) -> Result<u32, KernelError> {
        let config: Array<_, Config> =
            open(pins, MAP_CONFIG)?.try_into().context(|| MAP_CONFIG.to_owned())?;
        let config = config.get(&0, 0).context(|| format!("read {MAP_CONFIG}"))?;
        Ok(config.abi_version)
    }

    /// Begins where another agent has ended, perhaps between two writes: what programs look into is brought in step, and
    /// they forget what they remember.
    pub(super) fn take_over(&mut self) -> Result<(), KernelError> {
        self.pods.bring_in_step()?;
        self.forget()
    }

    /// The configuration. Its version of the maps is always 0, and whether all addresses are near is never said: both
    /// are this file's business.
    pub(super) fn config(&self) -> Result<Option<Config>, KernelError> {
        let config = self.read_config()?;
        let flags = config.flags & !Config::ALL_NEAR;
        Ok((config.abi_version != 0).then_some(Config { maps_version: 0, flags, ..config }))
    }

    pub(super) fn put_config(&mut self, config: &Config) -> Result<(), KernelError> {
        let maps_version = self.read_config()?.maps_version.wrapping_add(1);
        let near = if self.pods.are_all_near() { Config::ALL_NEAR } else { 0 };
        let flags = config.flags & !Config::ALL_NEAR | near;
        self.write_config(&Config { maps_version, flags, ..*config })
    }

    /// Makes the programs forget what they remember of `pw_nodes`: after every change of it.
    fn forget(&mut self) -> Result<(), KernelError> {
        let config = self.read_config()?;
        self.put_config(&config)
    }

    fn read_config(&self) -> Result<Config, KernelError> {
        self.config.get(&0, 0).context(|| format!("read {MAP_CONFIG}"))
    }

    fn write_config(&mut self, config: &Config) -> Result<(), KernelError> {
        self.config.set(0, config, 0).context(|| format!("write {MAP_CONFIG}"))
    }

    pub(super) fn pods(&mut self) -> Result<BTreeMap<AddrKey, PodEntry>, KernelError> {
        let entries = self.pods.read()?;
        self.tell_near()?;
        Ok(entries)
    }

    pub(super) fn put_pod(&mut self, address: Addr, entry: &PodEntry) -> Result<(), KernelError> {
        self.pods.put(address, entry)?;
        self.tell_near()
    }

    /// Removes the entry of an address, if it is of this generation.
    pub(super) fn remove_pod(&mut self, addr: Addr, generation: u64) -> Result<(), KernelError> {
        self.pods.remove(addr, generation)?;
        self.tell_near()
    }

    /// Tells the programs, where they do not know it, whether all addresses are near.
    fn tell_near(&mut self) -> Result<(), KernelError> {
        let config = self.read_config()?;
        let is_told = config.flags & Config::ALL_NEAR != 0;
        if is_told == self.pods.are_all_near() { Ok(()) } else { self.put_config(&config) }
    }

    pub(super) fn nodes(&self) -> Result<NodeTable, KernelError> {
        self.nodes.read()
    }

    pub(super) fn put_nodes(&mut self, rows: &NodeTable) -> Result<(), KernelError> {
        let put = self.nodes.put(rows);
        self.forget()?;
        put
    }

    pub(super) fn remove_nodes(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let removed = self.nodes.remove(prefixes);
        self.forget()?;
        removed
    }

    pub(super) fn counters(&self) -> Result<BTreeMap<u32, Stats>, KernelError> {
        self.stats.read()
    }
}

impl Counters {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        open(pins, MAP_STATS)?.try_into().map(Self).context(|| MAP_STATS.to_owned())
    }

    /// Sums over the processors, by number.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, Stats>, KernelError> {
        let mut counters = BTreeMap::new();
        for number in Counter::all().map(Counter::number) {
            let per_cpu = self.0.get(&number, 0).context(|| format!("read {MAP_STATS}"))?;
            let sum = per_cpu.iter().fold(Stats::default(), |sum, cpu| Stats {
                packets: sum.packets.wrapping_add(cpu.packets),
                bytes: sum.bytes.wrapping_add(cpu.bytes),
            });
            counters.insert(number, sum);
        }
        Ok(counters)
    }
}

pub(super) fn open(pins: &Pins, name: &str) -> Result<Map, KernelError> {
    let path = pins.map(name);
    let data = MapData::from_pin(&path).context(|| format!("open {}", path.display()))?;
    Map::from_map_data(data).context(|| format!("open {}", path.display()))
}

/// Success for what is gone already.
pub(super) fn unless_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}
