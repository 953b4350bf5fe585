//! What `podwire-agent status` shows: the document, and its way through the socket.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cni_shim::names::{BigTcp, PLUGIN_FILE, beside};
use cni_shim::protocol::{self, Call, MessageError, PROTOCOL_VERSION, Reply, Request};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::table::render;
use crate::compile::{Peer, Way};
use crate::model::Encapsulation;

/// An agent answers within this time or is stuck.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The whole document. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of the agent.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Layout of the pinned maps.
    pub abi_version: u32,
    /// Whether the kernel is as it should be.
    pub settled: bool,
    /// Where the nodes come from; none from an agent before there was a choice.
    #[serde(default)]
    pub source: Option<SourceStatus>,
    /// This node.
    pub node: NodeStatus,
    /// Pools of addresses.
    pub pools: Vec<PoolStatus>,
    /// Interfaces of pods.
    pub pods: Vec<PodStatus>,
    /// Other nodes.
    pub peers: Vec<PeerStatus>,
    /// Pinned programs.
    pub programs: Vec<ProgramStatus>,
    /// All counters, also those at zero.
    pub counters: Vec<CounterStatus>,
    /// How often something of ours was changed by somebody else and put back, by kind.
    pub drift: BTreeMap<String, u64>,
    /// What an operator should look at.
    pub problems: Vec<String>,
}

/// Where the nodes come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// For people.
    pub name: String,
    /// How many it gave that can be used, this one among them.
    pub nodes: usize,
    /// Whether what is known is as new as can be.
    pub current: bool,
    /// How long ago it was so.
    pub age_seconds: u64,
    /// Why it is not.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct NodeStatus {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
    pub cluster_cidrs: Vec<IpNet>,
    pub encapsulation: Encapsulation,
    pub uplinks: Vec<String>,
    pub pod_mtu: u32,
    /// None from an agent before there was a choice.
    #[serde(default)]
    pub big_tcp: Option<BigTcpStatus>,
}

/// How long the packets may be that pods hand the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BigTcpStatus {
    /// In bytes, of pods that are made from now on; none of a family: as the kernel has it.
    #[serde(flatten)]
    pub pods: BigTcp,
    /// Why.
    pub why: String,
}

impl fmt::Display for BigTcpStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families = [("IPv4", self.pods.ipv4), ("IPv6", self.pods.ipv6)];
        for (family, size) in families {
            if let Some(size) = size {
                write!(f, "{size} bytes of {family}, ")?;
            }
        }
        write!(f, "{}", self.why)
    }
}

/// A pool of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct PoolStatus {
    pub cidr: IpNet,
    pub used: u64,
    /// A large IPv6 pool does not fit: then the largest number.
    pub capacity: u64,
}

/// An interface of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct PodStatus {
    pub interface: String,
    pub ifindex: u32,
    pub container_id: String,
    pub ifname: String,
    pub network: String,
    pub pod: String,
    pub addresses: Vec<IpAddr>,
    pub generation: u64,
    /// Whether the interface exists.
    pub present: bool,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct PeerStatus {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub ways: Vec<WayStatus>,
}

/// The way to a pod network of another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct WayStatus {
    pub cidr: IpNet,
    /// `direct`, `vxlan` or `none`.
    pub way: String,
    pub node: Option<IpAddr>,
    pub mtu: u32,
}

impl From<&Peer<'_>> for PeerStatus {
    fn from(peer: &Peer<'_>) -> Self {
        let way = |(cidr, way): (IpNet, Way)| WayStatus {
            cidr,
            way: match (way.node, way.tunnel) {
                (None, _) => "none",
                (Some(_), true) => "vxlan",
                (Some(_), false) => "direct",
            }
            .to_owned(),
            node: way.node,
            mtu: way.mtu,
        };
        Self {
            name: peer.node.name.clone(),
            addresses: peer.node.addresses.clone(),
            ways: peer.networks().map(way).collect(),
        }
    }
}

/// A pinned program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct ProgramStatus {
    pub name: String,
    pub id: u32,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct CounterStatus {
    pub number: u32,
    pub name: String,
    /// `path` or `drop`.
    pub kind: String,
    pub packets: u64,
    pub bytes: u64,
    pub help: String,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody listens.
    #[error(
        "no agent listens at {}: {source}{}. Pods that run keep their network; new ones wait. Start \
         it (`podwire-agent run`), or name its socket in --socket",
        socket.display(), since(*last_seen)
    )]
    Away {
        /// Where.
        socket: PathBuf,
        /// When its socket's directory last showed a live agent.
        last_seen: Option<Duration>,
        /// What the system said.
        source: io::Error,
    },
    /// It listens, but not to everybody.
    #[error("the agent at {} answers to its owner only: {source}; ask as root", socket.display())]
    Denied {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It listens and does not answer well.
    #[error("the agent at {} does not answer: {source}", socket.display())]
    Stuck {
        /// Where.
        socket: PathBuf,
        /// What is wrong.
        source: MessageError,
    },
    /// It refused.
    #[error("the agent at {} refuses: {source}", socket.display())]
    Refused {
        /// Where.
        socket: PathBuf,
        /// What it said.
        source: protocol::Failure,
    },
    /// It answered something else.
    #[error("the agent at {} answered something else than its status", socket.display())]
    Other {
        /// Where.
        socket: PathBuf,
    },
}

fn since(last_seen: Option<Duration>) -> String {
    last_seen.map(|ago| format!("; it was last alive {} s ago", ago.as_secs())).unwrap_or_default()
}

/// Asks the agent.
///
/// # Errors
/// When nobody answers, or not with a status.
pub fn ask(socket: &Path) -> Result<serde_json::Value, StatusError> {
    let at = || socket.to_owned();
    let mut stream = UnixStream::connect(socket).map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return StatusError::Denied { socket: at(), source };
        }
        StatusError::Away { socket: at(), last_seen: last_seen(socket), source }
    })?;
    let request = Request { version: PROTOCOL_VERSION, call: Call::Status };
    let exchange = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(TIME_MAX))?;
        stream.set_write_timeout(Some(TIME_MAX))?;
        protocol::write(stream, &request)?;
        protocol::read::<Reply>(stream)
    };
    match exchange(&mut stream).map_err(|source| StatusError::Stuck { socket: at(), source })? {
        Reply::Status(status) => Ok(*status),
        Reply::Failed(source) => Err(StatusError::Refused { socket: at(), source }),
        Reply::Added(_) | Reply::Deleted | Reply::Ready | Reply::Collected(_) => {
            Err(StatusError::Other { socket: at() })
        }
    }
}

/// A live agent touches its plugin file.
fn last_seen(socket: &Path) -> Option<Duration> {
    let modified = beside(socket, PLUGIN_FILE).metadata().ok()?.modified().ok()?;
    SystemTime::now().duration_since(modified).ok()
}
