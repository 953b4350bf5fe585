//! What the programs of a node find in `pw_nodes`, read through its pin.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, Map, MapData, MapError};
use dataplane_core::abi::address::IPV4_PREFIX_OFFSET;
use dataplane_core::abi::names::MAP_NODES;
use dataplane_core::abi::{Addr, NodeEntry};

/// `pw_nodes` of one node.
#[derive(Debug)]
pub struct NodeMap(LpmTrie<MapData, Addr, NodeEntry>);

impl NodeMap {
    /// By the directory of the node's pins.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(bpffs: &Path) -> Result<Self> {
        let pin = bpffs.join("maps").join(MAP_NODES);
        let data = MapData::from_pin(&pin).with_context(|| pin.display().to_string())?;
        Ok(Self(Map::from_map_data(data)?.try_into()?))
    }

    /// The address of the node that a packet to this address is sent to; none when it is nobody's.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn way(&self, to: IpAddr) -> Result<Option<IpAddr>> {
        let bits = if to.is_ipv4() { 32 + IPV4_PREFIX_OFFSET } else { 128 };
        match self.0.get(&Key::new(bits, Addr::from(to)), 0) {
            Ok(entry) => {
                let leads = [NodeEntry::DIRECT, NodeEntry::TUNNEL].contains(&entry.kind);
                Ok(leads.then(|| entry.node.to_ip()))
            }
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
            Err(error) => Err(error).context(MAP_NODES),
        }
    }
}
