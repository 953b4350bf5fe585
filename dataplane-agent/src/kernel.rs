//! The border to the kernel: plain data on this side, aya and netlink only in the modules below.
//!
//! [`State`] describes both what is there and what should be there, so that planning is a comparison.

mod aggregates;
pub mod live;
mod node_table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cni_shim::names::{Hook, network_of_alias};
use dataplane_core::abi::{Addr, Config, Mac, PodEntry, Stats};
use ipnet::IpNet;

pub(crate) use self::aggregates::changed_aggregates;
pub use self::aggregates::{AGGREGATE_MAX, Aggregates, AllRaised, LEGACY_MAX, Raised};
pub use self::node_table::NodeTable;
use crate::model::{Attached, is_pod_interface};

/// The device between the host stack and the pods.
pub const HOST_DEVICE: &str = "podwire0";
/// Its peer, which only has to exist.
pub const HOST_DEVICE_PEER: &str = "podwire0p";
/// The VXLAN device.
pub const TUNNEL_DEVICE: &str = "podwire-vxlan";
/// The nftables table of family inet.
pub const NFT_TABLE: &str = "podwire";
/// Protocol of our routes and neighbours, so that they can be told from everybody else's: no routing
/// daemon of `rt_protos` has it, nor Calico (80).
pub const ROUTE_PROTOCOL: u8 = 157;

/// Everything of ours in one network namespace and one bpffs directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// `podwire0` and the tunnel device, by name.
    pub devices: BTreeMap<String, Device>,
    /// How long packets of interfaces may be, where somebody has changed it. Wanted of uplinks that we raise, or
    /// have raised.
    pub aggregates: BTreeMap<String, Aggregates>,
    /// Addresses on `podwire0`.
    pub addresses: BTreeSet<IpNet>,
    /// Cluster routes to `podwire0`, by destination.
    pub routes: BTreeMap<IpNet, Route>,
    /// Neighbours that the kernel keeps fresh for us.
    pub neighbours: BTreeSet<Neighbour>,
    /// Values below `/proc/sys`, by path (`net/ipv4/ip_forward`).
    pub sysctls: BTreeMap<String, String>,
    /// The nftables table.
    pub nft: Option<NftRules>,
    /// Programs attached through links pinned by us, by interface and hook: the program's name.
    /// The links of pods are here too.
    pub links: BTreeMap<(String, LinkHook), String>,
    /// The value of `pw_config`.
    pub config: Option<Config>,
    /// `pw_pods`.
    pub pods: BTreeMap<AddrKey, PodEntry>,
    /// `pw_nodes`.
    pub nodes: NodeTable,
}

/// A device that we make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// The NOARP veth pair `podwire0`, `podwire0p`, up, no link-local addresses.
    Host {
        /// In bytes.
        mtu: u32,
    },
    /// The metadata-mode VXLAN device, up, with [`dataplane_core::abi::config::TUNNEL_MAC`].
    Tunnel {
        /// UDP port.
        port: u16,
        /// In bytes.
        mtu: u32,
    },
}

/// A route to `podwire0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Source address that the host uses.
    pub source: IpAddr,
    /// In bytes.
    pub mtu: u32,
}

/// A next hop that programs send to. The programs use its entry without telling the kernel, which would take
/// it for unused: it is asked to look after it by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The interface.
    pub device: String,
    /// Its address on the link.
    pub address: IpAddr,
}

/// What the nftables table is made from (the rules themselves are in `kernel/live/nft.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftRules {
    /// This node's pod CIDRs: what is masqueraded when it leaves the cluster.
    pub pods: BTreeSet<IpNet>,
    /// All pod CIDRs of the cluster.
    pub cluster: BTreeSet<IpNet>,
    /// Addresses of all nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// This node's among them.
    pub own: BTreeSet<IpAddr>,
    /// UDP port of VXLAN that pods must not reach; none without a tunnel.
    pub tunnel_port: Option<u16>,
}

/// [`Hook`] with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkHook {
    /// TCX ingress.
    Ingress,
    /// TCX egress.
    Egress,
}

impl From<LinkHook> for Hook {
    fn from(hook: LinkHook) -> Self {
        match hook {
            LinkHook::Ingress => Self::Ingress,
            LinkHook::Egress => Self::Egress,
        }
    }
}

/// [`Addr`] with an order: that of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrKey(pub [u8; 16]);

impl From<Addr> for AddrKey {
    fn from(addr: Addr) -> Self {
        Self(addr.bytes)
    }
}

impl From<AddrKey> for Addr {
    fn from(key: AddrKey) -> Self {
        Self { bytes: key.0 }
    }
}

/// A network interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What `ip link` shows as its alias.
    pub alias: String,
    /// Its index.
    pub ifindex: u32,
    /// Its address; zero for devices without one.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has never had a carrier: both ends of a veth have never been up at once.
    pub unused: bool,
    /// What its packets look like.
    pub medium: Medium,
    /// How long its packets may be.
    pub aggregates: Aggregates,
    /// The most that its device takes of what is sent (`tso_max_size`).
    pub aggregates_max: u32,
    /// Its IP addresses with their prefix length.
    pub addresses: Vec<IpNet>,
}

/// What arrives on an interface, as far as it matters to the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// Packets with an Ethernet header.
    #[default]
    Ethernet,
    /// Packets without one: WireGuard, tun, PPP, IP in IP.
    Bare,
    /// Nothing: loopback and dummy devices only hold addresses.
    Nothing,
}

/// The kernel's way to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerRoute {
    /// All that the route may use; never empty.
    pub hops: BTreeSet<Hop>,
    /// The route's own MTU.
    pub mtu: Option<u32>,
}

/// The ways to addresses. Thousands of nodes are behind few routers: their ways are in memory once.
pub type PeerRoutes = BTreeMap<IpAddr, Arc<PeerRoute>>;

/// Where a route leads next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The interface.
    pub device: String,
    /// The router; none: the address itself is on the link.
    pub gateway: Option<IpAddr>,
}

/// What [`Kernel::observe`] is asked for, beside what it always tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions {
    /// Values below `/proc/sys`.
    pub sysctls: BTreeSet<String>,
    /// Addresses of other nodes, each with the own address that packets to it carry.
    pub peers: BTreeMap<IpAddr, IpAddr>,
    /// What is known of `pw_nodes`: it is not read, which takes a second where it is large.
    pub nodes: Option<NodeTable>,
}

/// What the kernel tells about changes, ours too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something that may concern us changed: look again.
    Changed,
    /// A source of these events ended.
    Lost,
    /// An interface is gone.
    LinkRemoved {
        /// The index that it had.
        ifindex: u32,
        /// Its name.
        name: String,
    },
}

/// One look at the kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// All interfaces of the namespace, by name.
    pub interfaces: BTreeMap<String, Link>,
    /// There are, or may be, IPsec policies for packets that leave.
    pub has_ipsec: bool,
    /// What of ours is there. `sysctls` holds those that were asked for.
    pub state: State,
    /// Neighbours with a MAC that somebody wrote down for good.
    pub fixed_neighbours: BTreeSet<Neighbour>,
    /// The ways to the addresses that were asked for; one that is missing has none.
    pub peer_routes: PeerRoutes,
    /// Parts of the state that could not be looked at, by the kind of their actions, and why not:
    /// what is empty there is not known to be missing.
    pub unknown: BTreeMap<&'static str, String>,
    /// What else could not be asked for, where the look has taken what does no harm.
    pub doubts: Vec<String>,
}

impl Observed {
    /// The interface of an attachment, if somebody has renamed it. The index alone may be another's since
    /// a reboot.
    pub fn renamed(&self, attached: &Attached) -> Option<&Link> {
        let by_index = self.interfaces.values().find(|link| link.ifindex == attached.ifindex);
        by_index
            .filter(|link| !is_pod_interface(&link.name))
            .filter(|link| link.mac.octets == attached.host_mac)
            .filter(|link| network_of_alias(&link.alias) == Some(&attached.network))
    }
}

/// One step towards the wanted state. Each can be repeated, and each fails alone. Entries of `pw_nodes` are
/// changed many at once.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names and types of the fields say it: see State")]
pub enum Action {
    /// Makes the device, or changes or replaces the one that is there.
    PutDevice {
        name: String,
        device: Device,
    },
    RemoveDevice {
        name: String,
    },
    SetAggregates {
        interface: String,
        aggregates: Aggregates,
    },
    AddAddress(IpNet),
    RemoveAddress(IpNet),
    PutRoute {
        destination: IpNet,
        route: Route,
    },
    RemoveRoute {
        destination: IpNet,
    },
    PutNeighbour(Neighbour),
    RemoveNeighbour(Neighbour),
    SetSysctl {
        path: String,
        value: String,
    },
    /// Replaces the table in one transaction.
    PutNft(NftRules),
    RemoveNft,
    /// Attaches a pinned program through a pinned link; updates the link in place where there is one.
    Attach {
        interface: String,
        hook: LinkHook,
        program: String,
    },
    /// Removes the pin of a link, and with it the attachment.
    Detach {
        interface: String,
        hook: LinkHook,
    },
    PutConfig(Config),
    PutPod {
        address: Addr,
        entry: PodEntry,
    },
    /// Removes the entry if it still has this generation.
    RemovePod {
        address: Addr,
        generation: u64,
    },
    /// Each of them, though one may fail.
    PutNodes(NodeTable),
    /// Likewise.
    RemoveNodes(Vec<IpNet>),
}

/// What the agent needs from the kernel. `kernel::live` has the real one, tests a fake.
pub trait Kernel {
    /// Looks at everything. A part that fails is in [`Observed::unknown`].
    ///
    /// # Errors
    /// When the kernel cannot be asked for its interfaces.
    fn observe(
        &mut self,
        questions: &Questions,
    ) -> impl Future<Output = Result<Observed, KernelError>> + Send;

    /// Asks for the ways to other nodes, by these interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn ways(
        &mut self,
        peers: &BTreeMap<IpAddr, IpAddr>,
        interfaces: &BTreeMap<String, Link>,
    ) -> impl Future<Output = Result<PeerRoutes, KernelError>> + Send;

    /// Does one step.
    ///
    /// # Errors
    /// When the kernel refuses it; nothing is half done then.
    fn apply(&mut self, action: &Action) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// The counters, summed over the processors, by number.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn counters(&mut self) -> Result<BTreeMap<u32, Stats>, KernelError>;

    /// Kernel ids of the pinned programs, by name.
    ///
    /// # Errors
    /// When a pin is missing or not a program.
    fn program_ids(&mut self) -> Result<BTreeMap<String, u32>, KernelError>;
}

/// Reads the counters, summed over the processors, by number; beside the kernel's owner, at any time.
pub type ReadCounters = Box<dyn Fn() -> Result<BTreeMap<u32, Stats>, KernelError> + Send + Sync>;

/// Why the kernel edge failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct KernelError {
    /// What was being done, with the object's name, and what to do about it where that is known.
    pub what: String,
    /// What the kernel or the library said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
