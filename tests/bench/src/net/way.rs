//! What is measured: who talks to whom, over what.

use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tests::namespace::Namespace;

use super::load::{Floor, Peers};

/// From where to where.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// Inside one network namespace.
    Loopback,
    /// From pod to pod of one node.
    SameNode,
    /// To another node, as packets are.
    Direct,
    /// The same, with the offloads of the uplinks off, as if they were a wire.
    DirectWire,
    /// To another node, inside VXLAN.
    Vxlan,
    /// The same, with the offloads of the uplinks off.
    VxlanWire,
    /// From a pod to an address of its node.
    OwnNode,
    /// From a pod to a host outside, which sees the address of the node.
    World,
    /// From pod to pod of one node, by how much is in the maps.
    SameNodeByEntries,
    /// To another node as packets are, by how much is in the maps.
    DirectByEntries,
    /// To another node, inside VXLAN, by how much is in the maps.
    VxlanByEntries,
    /// From a pod to an address of its node, by how much is in the maps.
    OwnNodeByEntries,
    /// From a pod to a host outside, by how much is in the maps.
    WorldByEntries,
}

impl Path {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 13] = [
        Self::SameNode,
        Self::Direct,
        Self::DirectWire,
        Self::Vxlan,
        Self::VxlanWire,
        Self::OwnNode,
        Self::World,
        Self::Loopback,
        Self::SameNodeByEntries,
        Self::DirectByEntries,
        Self::VxlanByEntries,
        Self::OwnNodeByEntries,
        Self::WorldByEntries,
    ];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback, for orientation",
            Self::SameNode => "pod to pod, same node",
            Self::Direct => "pod to pod, other node, direct",
            Self::DirectWire => "pod to pod, other node, direct, offloads of the uplinks off",
            Self::Vxlan => "pod to pod, other node, VXLAN",
            Self::VxlanWire => "pod to pod, other node, VXLAN, offloads of the uplinks off",
            Self::OwnNode => "pod to its own node",
            Self::World => "pod to the world, masqueraded",
            Self::SameNodeByEntries => "pod to pod, same node, by entries of the maps",
            Self::DirectByEntries => "pod to pod, other node, direct, by entries of the maps",
            Self::VxlanByEntries => "pod to pod, other node, VXLAN, by entries of the maps",
            Self::OwnNodeByEntries => "pod to its own node, by entries of the maps",
            Self::WorldByEntries => "pod to the world, masqueraded, by entries of the maps",
        }
    }

    /// What others are compared with.
    pub(crate) fn yardstick(self) -> Contender {
        match self {
            Self::Loopback => Contender::Loopback,
            Self::SameNode => Contender::Bare,
            Self::Direct | Self::DirectWire => Contender::Hosts,
            Self::Vxlan | Self::VxlanWire => Contender::BridgeVxlan,
            Self::OwnNode | Self::World => Contender::Bridge,
            Self::SameNodeByEntries
            | Self::DirectByEntries
            | Self::VxlanByEntries
            | Self::OwnNodeByEntries
            | Self::WorldByEntries => Contender::Ten,
        }
    }

    /// Whether it is one way again and again, with more in the maps.
    pub(crate) fn is_by_entries(self) -> bool {
        self.yardstick() == Contender::Ten
    }

    /// The same way with the offloads of the uplinks off, where there is one.
    pub(crate) fn on_wire(self) -> Option<Self> {
        if self == Self::Direct {
            return Some(Self::DirectWire);
        }
        (self == Self::Vxlan).then_some(Self::VxlanWire)
    }
}

/// Who connects the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// The kernel, inside one namespace.
    Loopback,
    /// A bare veth pair.
    Bare,
    /// The least program that can deliver a packet.
    Least,
    /// Host to host, without pods.
    Hosts,
    /// The plugin `bridge`; routes between machines.
    Bridge,
    /// The plugin `ptp`; routes between machines.
    Ptp,
    /// The plugin `bridge`; VXLAN with static entries between machines.
    BridgeVxlan,
    /// The same without checksums in outer UDP headers.
    BridgeVxlanUnchecked,
    /// Podwire as it is installed.
    Podwire,
    /// Podwire with `--big-tcp on`.
    PodwireBigTcp,
    /// Podwire with this many local and as many remote entries in the maps: ten.
    Ten,
    /// A hundred.
    Hundred,
    /// A thousand.
    Thousand,
    /// Ten thousand.
    TenThousand,
    /// Five thousand nodes.
    Nodes,
}

impl Contender {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Bare => "bare veth pair",
            Self::Least => "least program",
            Self::Hosts => "host to host",
            Self::Bridge => "bridge",
            Self::Ptp => "ptp",
            Self::BridgeVxlan => "bridge + VXLAN",
            Self::BridgeVxlanUnchecked => "bridge + VXLAN, no UDP checksums",
            Self::Podwire => "Podwire",
            Self::PodwireBigTcp => "Podwire, BIG TCP",
            Self::Ten => "10 entries",
            Self::Hundred => "100 entries",
            Self::Thousand => "1,000 entries",
            Self::TenThousand => "10,000 entries",
            Self::Nodes => "5,000 nodes",
        }
    }

    /// Whether packets meet programs.
    pub(crate) fn has_programs(self) -> bool {
        self == Self::Least || self.is_podwire()
    }

    /// Whether it is Podwire, whatever its maps hold.
    pub(crate) fn is_podwire(self) -> bool {
        matches!(
            self,
            Self::Podwire
                | Self::PodwireBigTcp
                | Self::Ten
                | Self::Hundred
                | Self::Thousand
                | Self::TenThousand
                | Self::Nodes
        )
    }
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// What makes two figures comparable, and who they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) path: Path,
    pub(crate) family: Family,
    pub(crate) contender: Contender,
}

impl Label {
    /// Whether it stands beside the others for orientation alone: the long turns, which take most of the time, are
    /// not for it.
    pub(crate) fn is_for_orientation(self) -> bool {
        let is_tunnelled = matches!(self.path, Path::Vxlan | Path::VxlanWire);
        self.path == Path::Loopback
            || is_tunnelled && self.contender == Contender::Hosts
            || matches!(self.contender, Contender::Least | Contender::BridgeVxlanUnchecked)
    }

    /// The same way of somebody else.
    pub(crate) fn of(self, contender: Contender) -> Self {
        Self { contender, ..self }
    }
}

/// Two ends.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) label: Label,
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    /// That of the server.
    pub(crate) address: IpAddr,
    /// Other pods where the server is, if there are any to send to, and the same without Podwire.
    pub(crate) peers: Option<(Arc<Peers>, Arc<Floor>)>,
}

impl Way {
    /// In both families.
    pub(crate) fn both(
        path: Path,
        contender: Contender,
        client: &Namespace,
        server: &Namespace,
        addresses: &[IpAddr],
    ) -> Vec<Self> {
        let way = |(family, address): (Family, &IpAddr)| Self {
            label: Label { path, family, contender },
            client: client.clone(),
            server: server.clone(),
            address: *address,
            peers: None,
        };
        Family::ALL.into_iter().zip(addresses).map(way).collect()
    }
}
