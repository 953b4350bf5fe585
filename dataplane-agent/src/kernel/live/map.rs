//! The pinned maps: what the agent reads and writes in them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use cni_shim::names::Pins;
use dataplane_core::abi::address::IPV4_PREFIX_OFFSET;
use dataplane_core::abi::names::{MAP_CONFIG, MAP_NODES, MAP_PODS, MAP_STATS, NODES_MAX, PODS_MAX};
use dataplane_core::abi::{Addr, Config, Counter, NodeEntry, PodEntry, Stats};
use ipnet::IpNet;

use super::error::{Context as _, refusal};
use crate::kernel::{AddrKey, KernelError};

/// The maps that the agent writes or reads.
pub(super) struct Maps {
    pods: HashMap<MapData, Addr, PodEntry>,
    nodes: LpmTrie<MapData, Addr, NodeEntry>,
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
            nodes: open(pins, MAP_NODES)?.try_into().context(|| MAP_NODES.to_owned())?,
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

    pub(super) fn nodes(&self) -> Result<BTreeMap<IpNet, NodeEntry>, KernelError> {
        let mut nodes = BTreeMap::new();
        for entry in self.nodes.iter() {
            let (key, entry) = entry.context(|| format!("read {MAP_NODES}"))?;
            nodes.insert(prefix(&key)?, entry);
        }
        Ok(nodes)
    }

    pub(super) fn put_node(&mut self, prefix: IpNet, entry: &NodeEntry) -> Result<(), KernelError> {
        self.nodes
            .insert(&key(prefix), entry, 0)
            .context(|| format!("put {prefix} into {MAP_NODES} (it holds {NODES_MAX})"))?;
        self.forget()
    }

    pub(super) fn remove_node(&mut self, prefix: IpNet) -> Result<(), KernelError> {
        unless_missing(self.nodes.remove(&key(prefix)))
            .context(|| format!("remove {prefix} from {MAP_NODES}"))?;
        self.forget()
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

fn key(prefix: IpNet) -> Key<Addr> {
    let length = u32::from(prefix.prefix_len());
    let offset = if matches!(prefix, IpNet::V4(_)) { IPV4_PREFIX_OFFSET } else { 0 };
    Key::new(length + offset, Addr::from(prefix.network()))
}

fn prefix(key: &Key<Addr>) -> Result<IpNet, KernelError> {
    let (length, addr) = (key.prefix_len(), key.data());
    let (ip, length) = match (addr.to_ip(), length.checked_sub(IPV4_PREFIX_OFFSET)) {
        (ip @ IpAddr::V4(_), Some(length)) => (ip, length),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => (IpAddr::V6(addr.bytes.into()), length),
    };
    u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(ip, length).ok())
        .ok_or_else(|| refusal(format!("read {MAP_NODES}"), format!("a key of {length} bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_prefixes_are_inverse() {
        for text in
            ["10.244.1.0/24", "0.0.0.0/0", "10.0.0.1/32", "fd00::/64", "::/0", "fd00::1/128"]
        {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(prefix(&key(net)).unwrap(), net);
        }
        assert_eq!(key("10.244.1.0/24".parse().unwrap()).prefix_len(), 120);
    }
}
