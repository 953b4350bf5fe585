//! What happens to a packet, per attach point.
//!
//! Each function is the precedence list of its attach point; the numbers in its documentation stand
//! beside the branches. Look-up results come as arguments: `pod` is `pw_pods` of the destination, `node`
//! is `pw_nodes` of the destination (asked for only when `pod` has nothing).

use crate::abi::{Config, DropReason, NodeEntry, Path, PodEntry};
use crate::ip::Ip;
use crate::packet::{Family, Headers, IPV4_LEN};
use crate::upper::{PROTOCOL_TCP, PROTOCOL_UDP};

/// What to do with a packet.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict<'a> {
    /// Deliver to a local pod.
    Pod(&'a PodEntry, Path),
    /// Send to another node, plain.
    Direct(&'a NodeEntry, Path),
    /// Send to another node, through VXLAN.
    Tunnel(&'a NodeEntry, Path),
    /// Let it enter the host stack through `podwire0`.
    Host(Path),
    /// Leave it alone: the next program, or the stack.
    Pass(Path),
    /// Drop it.
    Drop(DropReason),
}

impl Path {
    /// Whether the packet's TTL or hop limit falls by one on this way: each node is one hop.
    #[inline(always)]
    pub const fn spends_hop(self) -> bool {
        matches!(self, Self::PodToDirect | Self::PodToTunnel | Self::NetToPod | Self::TunnelToPod)
    }
}

/// Whether a pod may send with this source: identity is the veth and the address together.
#[inline(always)]
pub fn may_send(ifindex: u32, sender: Option<&PodEntry>) -> bool {
    matches!(sender, Some(entry) if entry.kind == PodEntry::POD && entry.ifindex == ifindex)
}

/// Whether a packet that leaves a pod on `ifindex` needs no closer look: it goes from the pod's own address to another
/// pod of this node, and nothing in it but the addresses matters. What [`from_pod`] would say of it is `Verdict::Pod`.
#[inline(always)]
pub fn is_plainly_local(
    headers: &Headers,
    ifindex: u32,
    sender: Option<&PodEntry>,
    pod: &PodEntry,
) -> bool {
    let is_plain = match headers.family {
        Family::V4 => headers.header_len == IPV4_LEN,
        Family::V6 => matches!(headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP),
    };
    is_plain && may_send(ifindex, sender) && pod.kind == PodEntry::POD
}

/// A packet that leaves a pod. `sender` is `pw_pods` of the source.
///
/// 1. Multicast and broadcast end here.
/// 2. The source must be the pod's own.
/// 3. A source route option is refused.
/// 4. Pods of this node, and this node's address among them.
/// 5. Pods of other nodes: what is expired or too big goes to the stack, which tells the sender.
/// 6. Nodes: through the stack, but never to their tunnel port.
/// 7. Addresses of the cluster that nobody has.
/// 8. The world: through the stack.
#[inline(always)]
pub fn from_pod<'a>(
    headers: &Headers,
    ifindex: u32,
    config: &Config,
    found: Found<'a>,
    details: &impl Details,
) -> Verdict<'a> {
    if headers.to_many() {
        return Verdict::Drop(DropReason::Multicast); // 1
    }
    if !may_send(ifindex, found.sender) {
        return Verdict::Drop(DropReason::SpoofedSource); // 2
    }
    if details.source_routed() {
        return Verdict::Drop(DropReason::SourceRoute); // 3
    }
    if let Some(pod) = found.pod {
        return local(pod, Path::PodToPod, Path::PodToHost); // 4
    }
    let Some(node) = found.node else {
        return Verdict::Host(Path::PodToHost); // 8
    };
    match node.kind {
        NodeEntry::DIRECT | NodeEntry::TUNNEL if headers.ttl <= 1 => {
            Verdict::Host(Path::PodExpired) // 5
        }
        NodeEntry::DIRECT | NodeEntry::TUNNEL if details.wire_length() > node.mtu => {
            Verdict::Host(Path::PodTooBig) // 5
        }
        NodeEntry::DIRECT => Verdict::Direct(node, Path::PodToDirect), // 5
        NodeEntry::TUNNEL => Verdict::Tunnel(node, Path::PodToTunnel), // 5
        NodeEntry::NODE => match details.udp_destination_port() {
            Some(port) if config.tunnel_ifindex != 0 && u32::from(port) == config.tunnel_port => {
                Verdict::Drop(DropReason::TunnelPort) // 6
            }
            _ => Verdict::Host(Path::PodToHost), // 6
        },
        _ => Verdict::Drop(DropReason::UnknownPod), // 7
    }
}

/// A packet that leaves the host stack by `podwire0`.
///
/// 1. Multicast and broadcast end here.
/// 2. Pods of this node.
/// 3. Pods of other nodes.
/// 4. Everything else has nobody behind it.
#[inline(always)]
pub fn from_host<'a>(
    headers: &Headers,
    pod: Option<&'a PodEntry>,
    node: Option<&'a NodeEntry>,
) -> Verdict<'a> {
    if headers.to_many() {
        return Verdict::Drop(DropReason::Multicast); // 1
    }
    match (pod, node) {
        (Some(pod), _) if pod.kind == PodEntry::POD => Verdict::Pod(pod, Path::HostToPod), // 2
        (None, Some(node)) if node.kind == NodeEntry::DIRECT => {
            Verdict::Direct(node, Path::HostToDirect) // 3
        }
        (None, Some(node)) if node.kind == NodeEntry::TUNNEL => {
            Verdict::Tunnel(node, Path::HostToTunnel) // 3
        }
        _ => Verdict::Drop(DropReason::UnknownPod), // 4
    }
}

/// A packet that arrives on an uplink for an address of `pw_pods`. `source` is `pw_nodes` of the source,
/// `quotes_cluster` says whether it is an ICMP error about a packet of the destination to the cluster.
///
/// 1. A source that belongs to this node is a lie.
/// 2. Where all pods of other nodes come through the tunnel, nothing of theirs comes plain. Where some
///    come plain, any may: which way a packet takes is its sender's choice, who may see a link where
///    this node sees a route.
/// 3. Sources among the pods, and errors about their packets, are delivered here; the rest is the
///    stack's, so that connection tracking sees both directions of it.
/// 4. At the end of its TTL the stack answers.
#[inline(always)]
pub fn from_net<'a>(
    headers: &Headers,
    config: &Config,
    pod: &'a PodEntry,
    source: Option<&NodeEntry>,
    quotes_cluster: impl FnOnce() -> bool,
) -> Verdict<'a> {
    let among_pods = match source {
        Some(source) => match source.kind {
            NodeEntry::OWN => return Verdict::Drop(DropReason::OwnSource), // 1
            NodeEntry::DIRECT => true,
            NodeEntry::TUNNEL | NodeEntry::CLUSTER => {
                if config.flags & Config::ACCEPT_DIRECT == 0 {
                    return Verdict::Drop(DropReason::NotTunnelled); // 2
                }
                true
            }
            _ => false,
        },
        None => false,
    };
    if !among_pods && (pod.kind != PodEntry::POD || !quotes_cluster()) {
        return Verdict::Pass(Path::NetPassed); // 3
    }
    if headers.ttl <= 1 && pod.kind == PodEntry::POD {
        return Verdict::Host(Path::NetExpired); // 4
    }
    local(pod, Path::NetToPod, Path::NetToHost) // 3
}

/// A packet that arrives through VXLAN. `source` is `pw_nodes` of the inner source, `sender` of the outer
/// one, where a node that is reached directly by its address of one family sends from that of the other.
///
/// 1. The tunnel must be ours.
/// 2. The node that owns the inner source must be the one that sent the outer packet, to this node's
///    registered address: one for another address of the node may come from a pod whose packets to the
///    world are masqueraded. A node that this one reaches directly may still see a tunnel between them.
/// 3. Multicast and broadcast end here.
/// 4. At the end of its TTL the stack answers.
/// 5. Pods of this node, and this node's address among them; nobody else.
#[inline(always)]
pub fn from_tunnel<'a>(
    headers: &Headers,
    config: &Config,
    key: &TunnelKey,
    pod: Option<&'a PodEntry>,
    source: Option<&NodeEntry>,
    sender: impl FnOnce() -> Option<&'a NodeEntry>,
) -> Verdict<'a> {
    if key.vni != config.tunnel_vni {
        return Verdict::Drop(DropReason::TunnelVni); // 1
    }
    let of_sender = match source {
        Some(source) if source.kind == NodeEntry::TUNNEL => Ip::from(&source.node) == key.remote,
        Some(source) if source.kind == NodeEntry::DIRECT => {
            Ip::from(&source.node) == key.remote
                || matches!(sender(), Some(sender)
                    if sender.kind == NodeEntry::NODE && sender.node == source.node)
        }
        Some(_) | None => false,
    };
    let registered = if key.local.is_ipv4() { &config.node_ipv4 } else { &config.node_ipv6 };
    let to_us = key.local == Ip::from(registered) && !key.local.is_unspecified();
    if !of_sender || !to_us {
        return Verdict::Drop(DropReason::TunnelSource); // 2
    }
    if headers.to_many() {
        return Verdict::Drop(DropReason::Multicast); // 3
    }
    let Some(pod) = pod else {
        return Verdict::Drop(DropReason::UnknownPod); // 5
    };
    if headers.ttl <= 1 && pod.kind == PodEntry::POD {
        return Verdict::Host(Path::TunnelExpired); // 4
    }
    local(pod, Path::TunnelToPod, Path::TunnelToHost) // 5
}

/// A packet on the last metre from the host to a pod's interface: only for the pod's own addresses.
#[inline(always)]
pub fn to_pod<'a>(ifindex: u32, pod: Option<&PodEntry>) -> Verdict<'a> {
    if may_send(ifindex, pod) {
        Verdict::Pass(Path::DeliveredToPod)
    } else {
        Verdict::Drop(DropReason::NotForThisPod)
    }
}

/// What the maps say of a packet's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    /// `pw_pods` of the source, of a packet that leaves a pod.
    pub sender: Option<&'a PodEntry>,
    /// `pw_pods` of the destination.
    pub pod: Option<&'a PodEntry>,
    /// Of a packet that leaves a pod or the host `pw_nodes` of the destination, none if `pod` is some; of one
    /// that arrives `pw_nodes` of the source.
    pub node: Option<&'a NodeEntry>,
}

/// What of a packet is read only when the decision hangs on it.
pub trait Details {
    /// Has a source route option.
    fn source_routed(&self) -> bool;
    /// UDP destination port, host order.
    fn udp_destination_port(&self) -> Option<u16>;
    /// Length on the wire from the IP header, in bytes; of an aggregate that of its segments.
    fn wire_length(&self) -> u32;
}

/// Whom the outer header of a VXLAN packet names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelKey {
    /// Network identifier.
    pub vni: u32,
    /// Outer source address.
    pub remote: Ip,
    /// Outer destination address (kernel 6.0 and newer tell it).
    pub local: Ip,
}

#[inline(always)]
fn local(pod: &PodEntry, to_pod: Path, to_host: Path) -> Verdict<'_> {
    match pod.kind {
        PodEntry::POD => Verdict::Pod(pod, to_pod),
        PodEntry::HOST => Verdict::Host(to_host),
        // Of a pod that is going away.
        _ => Verdict::Drop(DropReason::UnknownPod),
    }
}

/// Family of a next hop, which may differ from the packet's.
#[inline(always)]
pub const fn family_of(address: &Ip) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
