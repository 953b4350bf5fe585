//! What of ours is in the network namespace of this process and among the pins, for taking it away without an
//! agent.

use std::io;
use std::path::{Path, PathBuf};

use cni_shim::names::network_of_alias;
use dataplane_core::abi::names::{MAPS, PROGRAMS};
use rtnetlink::packet_route::link::InfoKind;

use super::netlink::{Netlink, RawLink, interfaces};
use super::nft::{self, Nft};
use super::{bpf, link};
use crate::files;
use crate::kernel::{
    AllRaised, HOST_DEVICE, HOST_DEVICE_PEER, KernelError, Neighbour, Raised, TUNNEL_DEVICE,
};
use crate::model::is_pod_interface;

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Host sides of pods, renamed ones too: name and alias.
    pub pods: Vec<(String, String)>,
    /// Those of our two devices that are there.
    pub devices: Vec<String>,
    /// Neighbours that the kernel keeps fresh for us.
    pub neighbours: Vec<Neighbour>,
}

/// The namespace.
pub struct Namespace {
    netlink: Netlink,
}

impl Namespace {
    /// That of this process. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When netlink cannot be opened.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// Looks at it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn residue(&self) -> Result<Residue, KernelError> {
        let links = self.netlink.links().await?;
        let pods = links.values().filter(|raw| is_pod(raw));
        let pods = pods.map(|raw| (raw.link.name.clone(), raw.link.alias.clone())).collect();
        // With one end of the pair goes the other.
        let host =
            [HOST_DEVICE, HOST_DEVICE_PEER].into_iter().find(|name| links.contains_key(*name));
        let tunnel = Some(TUNNEL_DEVICE).filter(|name| links.contains_key(*name));
        let neighbours = self.netlink.neighbours(&interfaces(&links)).await?.ours;
        Ok(Residue {
            pods,
            devices: host.into_iter().chain(tunnel).map(str::to_owned).collect(),
            neighbours: neighbours.into_iter().collect(),
        })
    }

    /// Removes an interface. One that is gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_interface(&self, name: &str) -> Result<(), KernelError> {
        self.netlink.remove_link(name).await
    }

    /// Removes a neighbour. One that is gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_neighbour(&self, neighbour: &Neighbour) -> Result<(), KernelError> {
        self.netlink.remove_neighbour(neighbour).await
    }

    /// Those of these uplinks that still are as the agent made them.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn still_raised(&self, mut raised: AllRaised) -> Result<AllRaised, KernelError> {
        let links = self.netlink.links().await?;
        let is_ours = |name: &str, raised: &Raised| {
            let link = links.get(name).map(|raw| &raw.link);
            link.is_some_and(|link| raised.is_ours(link.ifindex, &link.aggregates))
        };
        raised.retain(|name, raised| is_ours(name, raised));
        Ok(raised)
    }

    /// Gives an uplink back how long its packets might be.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn put_back(&self, uplink: &str, raised: &Raised) -> Result<(), KernelError> {
        self.netlink.set_aggregates(uplink, &raised.before).await
    }

    /// Whether the nftables table is there.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub async fn has_table(&self) -> Result<bool, KernelError> {
        Ok(nft::list().await?.is_some())
    }

    /// Removes the nftables table.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub async fn remove_table(&self) -> Result<(), KernelError> {
        Nft::default().remove().await
    }
}

/// By its alias also where somebody has renamed it, and by its name where a plugin was killed before it gave
/// the alias.
fn is_pod(raw: &RawLink) -> bool {
    raw.kind == Some(InfoKind::Veth)
        && (is_pod_interface(&raw.link.name) || network_of_alias(&raw.link.alias).is_some())
}

/// Our pins below a root and their directories, in the order in which they can go: links first, with which packets
/// no longer come to the programs.
///
/// # Errors
/// When a directory cannot be read.
pub fn own_pins(root: &Path) -> io::Result<Vec<PathBuf>> {
    let is_program = |name: &str| {
        let name = name.strip_suffix(bpf::NEW).unwrap_or(name);
        PROGRAMS.contains(&name)
    };
    let mut pins = files::list(&root.join("links"), link::is_pin)?;
    pins.extend(files::list(&root.join("programs"), is_program)?);
    pins.extend(files::list(&root.join("maps"), |name| MAPS.contains(&name))?);
    pins.extend(files::list(root, |name| bpf::DIRECTORIES.contains(&name))?);
    Ok(pins)
}
