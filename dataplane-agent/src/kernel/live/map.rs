//! The pinned maps: what the agent reads and writes in them.

use std::collections::BTreeMap;
use std::io;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use cni_shim::names::Pins;
use dataplane_core::abi::names::{MAP_CONFIG, MAP_NODES, MAP_PODS, MAP_STATS, PODS_MAX};
use dataplane_core::abi::{Addr, Config, Counter, PodEntry, Stats};
use ipnet::IpNet;

use super::error::Context as _;
use super::nodes::Nodes;
use crate::kernel::{AddrKey, KernelError, NodeTable};

/// The maps that the agent writes or reads.
pub(super) struct Maps {
    pods: HashMap<MapData, Addr, PodEntry>,
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
            pods: open(pins, MAP_PODS)?.try_into().context(|| MAP_PODS.to_owned())?,
            nodes: Nodes(open(pins, MAP_NODES)?.try_into().context(|| MAP_NODES.to_owned())?),
            config: open(pins, MAP_CONFIG)?.try_into().context(|| MAP_CONFIG.to_owned())?,
            stats: Counters::open(pins)?,
        })
    }

    /// The configuration; its version of the maps is this file's business and always 0.
    pub(super) fn config(&self) -> Result<Option<Config>, KernelError> {
        let config = Config { maps_version: 0, ..self.read_config()? };
        Ok((config.abi_version != 0).then_some(config))
    }

    pub(super) fn put_config(&mut self, config: &Config) -> Result<(), KernelError> {
        let maps_version = self.read_config()?.maps_version.wrapping_add(1);
        self.write_config(&Config { maps_version, ..*config })
    }

    /// Makes the programs forget what they remember of `pw_pods` and `pw_nodes`: after every change of them, and
    /// when an agent starts, as the one before may have ended between the two.
    pub(super) fn forget(&mut self) -> Result<(), KernelError> {
        let config = self.read_config()?;
        self.put_config(&config)
    }

    fn read_config(&self) -> Result<Config, KernelError> {
        self.config.get(&0, 0).context(|| format!("read {MAP_CONFIG}"))
    }

    fn write_config(&mut self, config: &Config) -> Result<(), KernelError> {
        self.config.set(0, config, 0).context(|| format!("write {MAP_CONFIG}"))
    }

    pub(super) fn pods(&self) -> Result<BTreeMap<AddrKey, PodEntry>, KernelError> {
        let entries = self.pods.iter().map(|entry| entry.map(|(addr, pod)| (addr.into(), pod)));
        entries.collect::<Result<_, _>>().context(|| format!("read {MAP_PODS}"))
    }

    pub(super) fn put_pod(&mut self, address: Addr, entry: &PodEntry) -> Result<(), KernelError> {
        self.pods
            .insert(address, entry, 0)
            .context(|| format!("put {} into {MAP_PODS} (it holds {PODS_MAX})", address.to_ip()))?;
        self.forget()
    }

    /// Compare-and-delete. There is no race between the two: the agent is the only writer.
    pub(super) fn remove_pod(&mut self, addr: Addr, generation: u64) -> Result<(), KernelError> {
        let what = || format!("remove {} from {MAP_PODS}", addr.to_ip());
        match self.pods.get(&addr, 0) {
            Ok(entry) if entry.generation != generation => Ok(()),
            Ok(_) => {
                unless_missing(self.pods.remove(&addr)).context(what)?;
                self.forget()
            }
            Err(error) => unless_missing(Err(error)).context(what),
        }
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

fn open(pins: &Pins, name: &str) -> Result<Map, KernelError> {
    let path = pins.map(name);
    let data = MapData::from_pin(&path).context(|| format!("open {}", path.display()))?;
    Map::from_map_data(data).context(|| format!("open {}", path.display()))
}

/// Success for what is gone already.
fn unless_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}
