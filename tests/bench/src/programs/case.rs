//! The kinds of packets, and what becomes of them.

use std::net::IpAddr;

use dataplane_core::abi::names;
use tests::bpf::{NEXT, REDIRECT};
use tests::packets::{tcp, to_mac, udp};

use super::Manner;

/// Hops of a packet at its start: with the most there can be, most runs see it travel.
const HOPS: u8 = 255;
const UDP_PORT: u16 = 5201;
const UDP_BYTES: usize = 22;

/// In place of a program: the kernel's part of a packet to another node, barely.
pub(super) const ROUTE: &str = "bpf_fib_lookup";
/// Likewise of a packet through VXLAN.
pub(super) const ROOM: &str = "bpf_skb_adjust_room";

/// How often a program can be run on a packet and see the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Forever,
    WhileHopsLast,
    Never,
}

/// A kind of packet.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) program: &'static str,
    pub(super) what: &'static str,
    pub(super) traffic: &'static str,
    /// What it is counted as, if anything.
    pub(super) counter: Option<&'static str>,
    /// What the program answers.
    pub(super) action: i32,
    pub(super) again: Again,
    pub(super) ifindex: u32,
    pub(super) packet: Vec<u8>,
}

impl Case {
    /// Runs per call in a manner; none where it means nothing.
    pub(super) fn runs(&self, manner: Manner) -> Option<u32> {
        match (manner, self.again) {
            (Manner::First, _) if !is_ours(self.program) => None,
            (Manner::Alone | Manner::First, _) => Some(1),
            (Manner::InARow, Again::Forever) => Some(10_000),
            (Manner::InARow, Again::WhileHopsLast) => Some(250),
            (Manner::InARow, Again::Never) => None,
        }
    }
}

/// Whether a program is one of the agent's.
pub(super) fn is_ours(program: &str) -> bool {
    names::PROGRAMS.contains(&program)
}

/// A device, and the MAC that packets on it are sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) ifindex: u32,
    pub(super) mac: [u8; 6],
}

/// Who and what there is, addresses as IPv4 and IPv6.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) pod: [IpAddr; 2],
    pub(super) neighbour: [IpAddr; 2],
    /// Pods of other nodes.
    pub(super) direct: [IpAddr; 2],
    pub(super) tunnelled: [IpAddr; 2],
    pub(super) world: [IpAddr; 2],
    /// The node, by its own addresses and by those among the pods.
    pub(super) node: [IpAddr; 2],
    pub(super) gateway: [IpAddr; 2],
    pub(super) other_node: [IpAddr; 2],
    pub(super) pod_device: Device,
    pub(super) uplink: Device,
    pub(super) tunnel: Device,
    pub(super) host: Device,
}

/// A way that packets take.
struct Way<'a> {
    program: &'static str,
    what: &'static str,
    counter: &'static str,
    again: Again,
    on: Device,
    from: &'a [IpAddr; 2],
    to: &'a [IpAddr; 2],
}

/// All kinds.
pub(super) fn all(ground: &Ground) -> Vec<Case> {
    let ours = ways(ground);
    ours.iter().flat_map(cases).chain(look_ups(ground)).chain([encapsulation(ground)]).collect()
}

/// Any packet, with a program that does nothing but look up the way to the other node.
fn look_ups(ground: &Ground) -> [Case; 2] {
    ["IPv4", "IPv6"].map(|traffic| barely(ground, ROUTE, traffic, Again::Forever))
}

/// Any packet, with a program that does nothing but put headers in front of it.
fn encapsulation(ground: &Ground) -> Case {
    barely(ground, ROOM, "IPv4", Again::Never)
}

fn barely(ground: &Ground, program: &'static str, traffic: &'static str, again: Again) -> Case {
    Case {
        program,
        what: "to another node",
        traffic,
        counter: None,
        action: 0,
        again,
        ifindex: ground.host.ifindex,
        packet: tcp(&ground.gateway[0].to_string(), &ground.direct[0].to_string(), HOPS),
    }
}

fn ways(ground: &Ground) -> Vec<Way<'_>> {
    use Again::{Forever, Never, WhileHopsLast};
    use names::{
        PROGRAM_FROM_HOST, PROGRAM_FROM_NET, PROGRAM_FROM_POD, PROGRAM_FROM_TUNNEL, PROGRAM_TO_POD,
    };
    const HERE: &str = "to a pod of this node";
    const DIRECT: &str = "to another node, direct";
    const TUNNEL: &str = "to another node, VXLAN";
    let Ground { pod, neighbour, direct, tunnelled, world, node, gateway, other_node, .. } = ground;
    let (from_pod, on_host) = (ground.pod_device, ground.host);
    #[rustfmt::skip]
    let rows = [
        (PROGRAM_FROM_POD, HERE, "pod_to_pod", Forever, from_pod, pod, neighbour),
        (PROGRAM_FROM_POD, DIRECT, "pod_to_direct", WhileHopsLast, from_pod, pod, direct),
        (PROGRAM_FROM_POD, TUNNEL, "pod_to_tunnel", Never, from_pod, pod, tunnelled),
        (PROGRAM_FROM_POD, "to the world", "pod_to_host", Forever, from_pod, pod, world),
        (PROGRAM_TO_POD, "from the node", "delivered_to_pod", Forever, from_pod, gateway, pod),
        (PROGRAM_FROM_NET, HERE, "net_to_pod", WhileHopsLast, ground.uplink, direct, pod),
        (PROGRAM_FROM_NET, "to the node itself", "net_passed", Forever, ground.uplink, other_node, node),
        (PROGRAM_FROM_TUNNEL, HERE, "tunnel_to_pod", WhileHopsLast, ground.tunnel, tunnelled, pod),
        (PROGRAM_FROM_HOST, HERE, "host_to_pod", Forever, on_host, gateway, pod),
        (PROGRAM_FROM_HOST, DIRECT, "host_to_direct", Forever, on_host, gateway, direct),
        (PROGRAM_FROM_HOST, TUNNEL, "host_to_tunnel", Never, on_host, gateway, tunnelled),
    ];
    let way = |(program, what, counter, again, on, from, to)| Way {
        program,
        what,
        counter,
        again,
        on,
        from,
        to,
    };
    rows.into_iter().map(way).collect()
}

/// Both families, TCP and UDP.
fn cases(way: &Way<'_>) -> Vec<Case> {
    let ends = |family: usize| (way.from[family].to_string(), way.to[family].to_string());
    let ([from4, to4], [from6, to6]) = (<[_; 2]>::from(ends(0)), <[_; 2]>::from(ends(1)));
    let packets = [
        ("IPv4 TCP", tcp(&from4, &to4, HOPS)),
        ("IPv4 UDP", udp(&from4, &to4, HOPS, UDP_PORT, UDP_BYTES)),
        ("IPv6 TCP", tcp(&from6, &to6, HOPS)),
        ("IPv6 UDP", udp(&from6, &to6, HOPS, UDP_PORT, UDP_BYTES)),
    ];
    let passed_on = matches!(way.counter, "net_passed" | "delivered_to_pod");
    let case = |(traffic, packet)| Case {
        program: way.program,
        what: way.what,
        traffic,
        counter: Some(way.counter),
        action: if passed_on { NEXT } else { REDIRECT },
        again: way.again,
        ifindex: way.on.ifindex,
        packet: to_mac(packet, way.on.mac),
    };
    packets.map(case).into()
}
