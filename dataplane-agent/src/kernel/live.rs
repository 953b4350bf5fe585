//! The real kernel: BPF through aya, devices and routes through netlink, one table through `nft`.
//!
//! All calls act in the network namespace of the calling thread; the agent's threads share one.

mod bpf;
mod device;
mod dump;
mod error;
mod ipsec;
mod link;
mod log;
mod map;
mod neighbour;
mod netlink;
mod nft;
mod nodes;
mod peers;
mod pods;
pub mod preflight;
pub mod probe;
mod problem;
mod question;
mod residue;
mod route;
mod syscall;
mod sysctl;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cni_shim::grace::{self, Expedited};
use cni_shim::names::Pins;
use dataplane_core::abi::Stats;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use self::error::Context as _;
use super::{
    Action, Event, Kernel, KernelError, Link, Observed, PeerRoutes, Questions, ReadCounters, State,
    changed_aggregates,
};

pub use problem::{forward_policies, problems};
pub use residue::{Namespace, Residue, own_pins};

/// `nft` lists the table within this time, or the rest of the look goes on without it.
const NFT_TIME_MAX: Duration = Duration::from_secs(4);

/// Where values of the kernel are set, unless it is said.
pub const SYSCTLS: &str = "/proc/sys";

/// The programs of this build.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PODWIRE_BPF_OBJECT_PATH"));

/// The kernel of the namespace and the bpffs directory that the agent works in.
pub struct LiveKernel {
    bpf: bpf::Bpf,
    links: link::Links,
    netlink: netlink::Netlink,
    nft: nft::Nft,
    peers: peers::Asked,
    sysctls: sysctl::Sysctls,
    /// Whether grace periods are expedited where one of its steps waits for some.
    expedite: bool,
}

impl LiveKernel {
    /// Loads and pins programs and maps below `bpffs`, or takes over those that are pinned there.
    ///
    /// Programs that are the same stay as they are; others are exchanged in place, also in every
    /// pinned link, so that no packet misses its program. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When pins are foreign or of another layout, when the kernel refuses a program (with the
    /// verifier's log), or when netlink cannot be opened.
    pub fn open(bpffs: &Path, expedite: bool) -> Result<Self, KernelError> {
        Self::open_object(bpffs, OBJECT, expedite)
    }

    /// With the values of `/proc/sys` in another place.
    #[must_use]
    pub fn with_sysctls(self, directory: &Path) -> Self {
        Self { sysctls: sysctl::Sysctls(directory.to_path_buf()), ..self }
    }

    fn open_object(bpffs: &Path, object: &[u8], expedite: bool) -> Result<Self, KernelError> {
        let pins = Pins(bpffs.to_path_buf());
        let netlink = netlink::Netlink::open()?;
        let bpf = bpf::Bpf::open(&pins, object)?;
        Ok(Self {
            bpf,
            links: link::Links::new(pins),
            netlink,
            nft: nft::Nft::default(),
            peers: peers::Asked::default(),
            sysctls: sysctl::Sysctls(SYSCTLS.into()),
            expedite,
        })
    }

    /// A reader of the counters beside this kernel: it has a handle of its own, and nothing else.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn counter_reader(&self) -> Result<ReadCounters, KernelError> {
        let counters = self.bpf.counters()?;
        Ok(Box::new(move || counters.read()))
    }

    /// Begins to tell what changes. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the sockets cannot be opened.
    pub fn watch(&self) -> Result<Receiver<Event>, KernelError> {
        watch::watch(self.peers.ways())
    }
}

/// What could not be looked at, and why.
#[derive(Default)]
struct Parts(BTreeMap<&'static str, String>);

impl Parts {
    fn take<T: Default>(&mut self, kind: &'static str, part: Result<T, KernelError>) -> T {
        part.unwrap_or_else(|error| {
            self.0.insert(kind, error.to_string());
            T::default()
        })
    }
}

impl Kernel for LiveKernel {
    async fn observe(&mut self, questions: &Questions) -> Result<Observed, KernelError> {
        let mut parts = Parts::default();
        parts.take("pin", self.bpf.restore_pins());
        if matches!(grace::end_abandoned(), Ok(true)) {
            tracing::debug!("grace periods are as they were: a plugin was killed meanwhile");
        }
        let raw = self.netlink.links().await?;
        let interfaces = netlink::interfaces(&raw);
        let links = self.bpf.program_names();
        let links = links.and_then(|programs| self.links.observe(&interfaces, &programs));
        let nft = timeout(NFT_TIME_MAX, self.nft.observe()).await;
        let nft = nft.context(|| "list the nftables table".to_owned()).flatten();
        // What is not known counts as there: no packet leaves in clear by mistake.
        let policies = ipsec::has_policies();
        let has_ipsec = !matches!(policies, Ok(false));
        let mut doubts: Vec<String> = policies.err().iter().map(ToString::to_string).collect();
        let neighbours = self.netlink.neighbours(&interfaces).await;
        let neighbours = parts.take("neighbour", neighbours);
        let state = State {
            devices: device::observe(&raw),
            aggregates: changed_aggregates(&interfaces),
            addresses: netlink::host_addresses(&interfaces),
            routes: parts.take("route", self.netlink.routes(&interfaces).await),
            neighbours: neighbours.ours,
            sysctls: parts.take("sysctl", self.sysctls.read(&questions.sysctls)),
            nft: parts.take("nftables", nft),
            links: parts.take("link", links),
            config: parts.take("config", self.bpf.maps.config()),
            pods: parts.take("pod", self.bpf.maps.pods()),
            nodes: match &questions.nodes {
                Some(known) => known.clone(),
                None => parts.take("node", self.bpf.maps.nodes()),
            },
        };
        let peer_routes = match self.peers.look(&questions.peers, &interfaces).await {
            Ok((routes, unread)) => {
                doubts.extend(unread);
                routes
            }
            // Better old ones than none, which would change the way to every node.
            Err(error) => {
                let Some(routes) = self.peers.last() else { return Err(error) };
                doubts.push(error.to_string());
                routes
            }
        };
        let fixed_neighbours = neighbours.fixed;
        Ok(Observed {
            interfaces,
            has_ipsec,
            state,
            fixed_neighbours,
            peer_routes,
            unknown: parts.0,
            doubts,
        })
    }

    async fn ways(
        &mut self,
        peers: &BTreeMap<IpAddr, IpAddr>,
        interfaces: &BTreeMap<String, Link>,
    ) -> Result<PeerRoutes, KernelError> {
        // What is in doubt is asked again, and said, at the next look.
        self.peers.look(peers, interfaces).await.map(|(routes, _)| routes)
    }

    async fn apply(&mut self, action: &Action) -> Result<(), KernelError> {
        match action {
            Action::PutDevice { name, device } => device::put(&self.netlink, name, device).await,
            Action::RemoveDevice { name } => {
                let _expedited = Expedited::begin(self.expedite);
                self.netlink.remove_link(name).await
            }
            Action::SetAggregates { interface, aggregates } => {
                self.netlink.set_aggregates(interface, aggregates).await
            }
            Action::AddAddress(address) => self.netlink.add_host_address(*address).await,
            Action::RemoveAddress(address) => self.netlink.remove_host_address(*address).await,
            Action::PutRoute { destination, route } => {
                self.netlink.put_route(*destination, route).await
            }
            Action::RemoveRoute { destination } => self.netlink.remove_route(*destination).await,
            Action::PutNeighbour(neighbour) => self.netlink.put_neighbour(neighbour).await,
            Action::RemoveNeighbour(neighbour) => self.netlink.remove_neighbour(neighbour).await,
            Action::SetSysctl { path, value } => self.sysctls.write(path, value),
            Action::PutNft(rules) => self.nft.put(rules).await,
            Action::RemoveNft => self.nft.remove().await,
            Action::Attach { interface, hook, program } => {
                let _expedited = Expedited::begin(self.expedite);
                self.links.attach(interface, *hook, self.bpf.program(program)?)
            }
            Action::Detach { interface, hook } => self.links.detach(interface, *hook),
            Action::PutConfig(config) => self.bpf.maps.put_config(config),
            Action::PutPod { address, entry } => self.bpf.maps.put_pod(*address, entry),
            Action::RemovePod { address, generation } => {
                self.bpf.maps.remove_pod(*address, *generation)
            }
            Action::PutNodes(rows) => self.bpf.maps.put_nodes(rows),
            Action::RemoveNodes(prefixes) => self.bpf.maps.remove_nodes(prefixes),
        }
    }

    fn counters(&mut self) -> Result<BTreeMap<u32, Stats>, KernelError> {
        self.bpf.maps.counters()
    }

    fn program_ids(&mut self) -> Result<BTreeMap<String, u32>, KernelError> {
        let names = self.bpf.program_names()?;
        Ok(names.into_iter().map(|(id, name)| (name.to_owned(), id)).collect())
    }
}
