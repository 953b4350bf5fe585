//! The precedence of each attach point, row by row.

use dataplane_core::abi::config::{GATEWAY_MAC, TUNNEL_MAC};
use dataplane_core::abi::{ABI_VERSION, Addr, Config, DropReason, Mac, NodeEntry, Path, PodEntry};
use dataplane_core::decide::{
    Details, Found, TunnelKey, Verdict, from_host, from_net, from_pod, from_tunnel,
    is_plainly_local, to_pod,
};
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Family, Headers};

const POD: PodEntry = pod(7, PodEntry::POD);
const OTHER: PodEntry = pod(8, PodEntry::POD);
const HOST: PodEntry = pod(3, PodEntry::HOST);
const GOING: PodEntry = pod(0, PodEntry::NOBODY);
const DIRECT: NodeEntry = node(NodeEntry::DIRECT);
const TUNNEL: NodeEntry = node(NodeEntry::TUNNEL);
const NODE: NodeEntry = node(NodeEntry::NODE);
const CLUSTER: NodeEntry = node(NodeEntry::CLUSTER);
const OWN: NodeEntry = node(NodeEntry::OWN);

const fn pod(ifindex: u32, kind: u32) -> PodEntry {
    let mac = Mac::new([2, 0, 0, 0, 0, 9]);
    PodEntry { ifindex, kind, mac, gateway_mac: GATEWAY_MAC, reserved: 0, generation: 1 }
}

const fn node(kind: u32) -> NodeEntry {
    let mut bytes = [0; 16];
    (bytes[10], bytes[11], bytes[12], bytes[13]) = (0xff, 0xff, 192, 168);
    (bytes[14], bytes[15]) = (1, 12);
    NodeEntry { node: Addr { bytes }, kind, mtu: 1450 }
}

fn config(flags: u32) -> Config {
    Config {
        abi_version: ABI_VERSION,
        flags,
        host_ifindex: 3,
        tunnel_ifindex: 4,
        tunnel_vni: 42,
        tunnel_port: 8472,
        host_mac: Mac::default(),
        tunnel_mac: TUNNEL_MAC,
        maps_version: 0,
        node_ipv4: Ip::from_ipv4([192, 168, 1, 11]).into(),
        node_ipv6: Addr::UNSPECIFIED,
    }
}

fn headers(destination: [u8; 4], ttl: u8) -> Headers {
    Headers {
        family: Family::V4,
        source: Ip::from_ipv4([10, 244, 1, 2]),
        destination: Ip::from_ipv4(destination),
        ttl,
        traffic_class: 0,
        protocol: 6,
        later_fragment: false,
        header_len: 20,
    }
}

const TO: [u8; 4] = [10, 244, 2, 3];

struct Facts {
    source_routed: bool,
    port: Option<u16>,
    length: u32,
}

impl Details for Facts {
    fn source_routed(&self) -> bool {
        self.source_routed
    }
    fn udp_destination_port(&self) -> Option<u16> {
        self.port
    }
    fn wire_length(&self) -> u32 {
        self.length
    }
}

const PLAIN: Facts = Facts { source_routed: false, port: None, length: 1450 };

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn packets_of_a_pod() {
    use DropReason::{Multicast, SourceRoute, SpoofedSource, TunnelPort, UnknownPod};
    use Path::{PodExpired, PodToDirect, PodToHost, PodToPod, PodToTunnel, PodTooBig};
    let own = Some(&POD);
    let routed = Facts { source_routed: true, ..PLAIN };
    let vxlan = Facts { port: Some(8472), ..PLAIN };
    let dns = Facts { port: Some(53), ..PLAIN };
    let big = Facts { length: 1451, ..PLAIN };
    type Row<'a> = (
        &'a str,
        Headers,
        Option<&'a PodEntry>,
        Option<&'a PodEntry>,
        Option<&'a NodeEntry>,
        &'a Facts,
        Verdict<'a>,
    );
    let h = headers(TO, 64);
    let rows: [Row<'_>; 22] = [
        (
            "multicast",
            headers([224, 0, 0, 1], 1),
            own,
            None,
            None,
            &PLAIN,
            Verdict::Drop(Multicast),
        ),
        ("broadcast", headers([255; 4], 1), own, None, None, &PLAIN, Verdict::Drop(Multicast)),
        ("nobody's source", h, None, Some(&OTHER), None, &PLAIN, Verdict::Drop(SpoofedSource)),
        (
            "another's source",
            h,
            Some(&OTHER),
            Some(&OTHER),
            None,
            &PLAIN,
            Verdict::Drop(SpoofedSource),
        ),
        ("the host's source", h, Some(&HOST), None, None, &PLAIN, Verdict::Drop(SpoofedSource)),
        ("source route", h, own, Some(&OTHER), None, &routed, Verdict::Drop(SourceRoute)),
        ("neighbour", h, own, Some(&OTHER), None, &PLAIN, Verdict::Pod(&OTHER, PodToPod)),
        ("itself", h, own, Some(&POD), None, &PLAIN, Verdict::Pod(&POD, PodToPod)),
        (
            "neighbour, TTL 1",
            headers(TO, 1),
            own,
            Some(&OTHER),
            None,
            &PLAIN,
            Verdict::Pod(&OTHER, PodToPod),
        ),
        ("own gateway address", h, own, Some(&HOST), None, &PLAIN, Verdict::Host(PodToHost)),
        ("direct", h, own, None, Some(&DIRECT), &PLAIN, Verdict::Direct(&DIRECT, PodToDirect)),
        ("tunnel", h, own, None, Some(&TUNNEL), &PLAIN, Verdict::Tunnel(&TUNNEL, PodToTunnel)),
        (
            "direct, TTL 1",
            headers(TO, 1),
            own,
            None,
            Some(&DIRECT),
            &PLAIN,
            Verdict::Host(PodExpired),
        ),
        (
            "tunnel, TTL 1",
            headers(TO, 1),
            own,
            None,
            Some(&TUNNEL),
            &PLAIN,
            Verdict::Host(PodExpired),
        ),
        (
            "tunnel, TTL 2",
            headers(TO, 2),
            own,
            None,
            Some(&TUNNEL),
            &PLAIN,
            Verdict::Tunnel(&TUNNEL, PodToTunnel),
        ),
        ("too big", h, own, None, Some(&TUNNEL), &big, Verdict::Host(PodTooBig)),
        ("a node", h, own, None, Some(&NODE), &dns, Verdict::Host(PodToHost)),
        ("a node's tunnel", h, own, None, Some(&NODE), &vxlan, Verdict::Drop(TunnelPort)),
        ("nobody, cluster", h, own, None, Some(&CLUSTER), &PLAIN, Verdict::Drop(UnknownPod)),
        ("nobody, own CIDR", h, own, None, Some(&OWN), &PLAIN, Verdict::Drop(UnknownPod)),
        ("the world, same port", h, own, None, None, &vxlan, Verdict::Host(PodToHost)),
        ("one that goes away", h, own, Some(&GOING), None, &PLAIN, Verdict::Drop(UnknownPod)),
    ];
    for (name, headers, sender, pod, node, facts, expected) in rows {
        let found = Found { sender, pod, node };
        assert_eq!(from_pod(&headers, 7, &config(0), found, facts), expected, "{name}");
    }
    let without_tunnel = Config { tunnel_ifindex: 0, ..config(0) };
    let found = Found { sender: own, pod: None, node: Some(&NODE) };
    assert_eq!(from_pod(&h, 7, &without_tunnel, found, &vxlan), Verdict::Host(PodToHost));
}

#[test]
fn packets_of_the_host() {
    let h = headers(TO, 1);
    type Row<'a> = (&'a str, Headers, Option<&'a PodEntry>, Option<&'a NodeEntry>, Verdict<'a>);
    let rows: [Row<'_>; 8] = [
        ("pod", h, Some(&POD), None, Verdict::Pod(&POD, Path::HostToPod)),
        ("direct", h, None, Some(&DIRECT), Verdict::Direct(&DIRECT, Path::HostToDirect)),
        ("tunnel", h, None, Some(&TUNNEL), Verdict::Tunnel(&TUNNEL, Path::HostToTunnel)),
        ("itself", h, Some(&HOST), None, Verdict::Drop(DropReason::UnknownPod)),
        ("node", h, None, Some(&NODE), Verdict::Drop(DropReason::UnknownPod)),
        ("own CIDR", h, None, Some(&OWN), Verdict::Drop(DropReason::UnknownPod)),
        ("world", h, None, None, Verdict::Drop(DropReason::UnknownPod)),
        ("multicast", headers([239, 1, 1, 1], 1), None, None, Verdict::Drop(DropReason::Multicast)),
    ];
    for (name, headers, pod, node, expected) in rows {
        assert_eq!(from_host(&headers, pod, node), expected, "{name}");
    }
}

#[test]
fn packets_of_the_network() {
    use DropReason::{NotTunnelled, OwnSource};
    use Path::{NetExpired, NetPassed, NetToHost, NetToPod};
    let direct = Config::ACCEPT_DIRECT;
    type Row<'a> = (&'a str, u32, u8, &'a PodEntry, Option<&'a NodeEntry>, bool, Verdict<'a>);
    let rows: [Row<'_>; 15] = [
        ("direct", direct, 64, &POD, Some(&DIRECT), false, Verdict::Pod(&POD, NetToPod)),
        ("unknown node", direct, 64, &POD, Some(&CLUSTER), false, Verdict::Pod(&POD, NetToPod)),
        (
            "unknown node, VXLAN only",
            0,
            64,
            &POD,
            Some(&CLUSTER),
            false,
            Verdict::Drop(NotTunnelled),
        ),
        ("tunnel peer", 0, 64, &POD, Some(&TUNNEL), false, Verdict::Drop(NotTunnelled)),
        ("tunnel peer, auto", direct, 64, &POD, Some(&TUNNEL), false, Verdict::Pod(&POD, NetToPod)),
        ("own source", direct, 64, &POD, Some(&OWN), false, Verdict::Drop(OwnSource)),
        ("own source to the host", direct, 64, &HOST, Some(&OWN), false, Verdict::Drop(OwnSource)),
        ("a node", direct, 64, &POD, Some(&NODE), false, Verdict::Pass(NetPassed)),
        ("the world", direct, 64, &POD, None, false, Verdict::Pass(NetPassed)),
        ("error of a router", direct, 64, &POD, None, true, Verdict::Pod(&POD, NetToPod)),
        ("error of a router to the host", direct, 64, &HOST, None, true, Verdict::Pass(NetPassed)),
        ("TTL 1", direct, 1, &POD, Some(&DIRECT), false, Verdict::Host(NetExpired)),
        ("TTL 2", direct, 2, &POD, Some(&DIRECT), false, Verdict::Pod(&POD, NetToPod)),
        ("to the host", direct, 1, &HOST, Some(&DIRECT), false, Verdict::Host(NetToHost)),
        ("the world, TTL 1", direct, 1, &POD, None, false, Verdict::Pass(NetPassed)),
    ];
    for (name, flags, ttl, pod, source, quotes, expected) in rows {
        let verdict = from_net(&headers(TO, ttl), &config(flags), pod, source, || quotes);
        assert_eq!(verdict, expected, "{name}");
    }
}

#[test]
fn packets_of_the_tunnel() {
    use DropReason::{Multicast, TunnelSource, TunnelVni, UnknownPod};
    let good = TunnelKey {
        vni: 42,
        remote: Ip::from_ipv4([192, 168, 1, 12]),
        local: Ip::from_ipv4([192, 168, 1, 11]),
    };
    let virtual_ip = TunnelKey { local: Ip::from_ipv4([192, 168, 1, 100]), ..good };
    let other_family = TunnelKey { local: Ip::UNSPECIFIED, ..good };
    let other_vni = TunnelKey { vni: 43, ..good };
    let stranger = TunnelKey { remote: Ip::from_ipv4([192, 168, 1, 13]), ..good };
    let h = headers(TO, 64);
    type Row<'a> =
        (&'a str, Headers, TunnelKey, Option<&'a PodEntry>, Option<&'a NodeEntry>, Verdict<'a>);
    let (pod, host) = (Some(&POD), Some(&HOST));
    let rows: [Row<'_>; 15] = [
        ("pod", h, good, pod, Some(&TUNNEL), Verdict::Pod(&POD, Path::TunnelToPod)),
        ("host", headers(TO, 1), good, host, Some(&TUNNEL), Verdict::Host(Path::TunnelToHost)),
        ("TTL 1", headers(TO, 1), good, pod, Some(&TUNNEL), Verdict::Host(Path::TunnelExpired)),
        ("VNI", h, other_vni, pod, Some(&TUNNEL), Verdict::Drop(TunnelVni)),
        ("other node's pod", h, stranger, pod, Some(&TUNNEL), Verdict::Drop(TunnelSource)),
        ("own pod's source", h, good, pod, Some(&OWN), Verdict::Drop(TunnelSource)),
        ("node's source", h, good, pod, Some(&NODE), Verdict::Drop(TunnelSource)),
        ("direct peer", h, good, pod, Some(&DIRECT), Verdict::Pod(&POD, Path::TunnelToPod)),
        ("other direct peer", h, stranger, pod, Some(&DIRECT), Verdict::Drop(TunnelSource)),
        ("virtual address", h, virtual_ip, pod, Some(&TUNNEL), Verdict::Drop(TunnelSource)),
        ("no IPv6 address", h, other_family, pod, Some(&TUNNEL), Verdict::Drop(TunnelSource)),
        ("unknown node", h, good, pod, Some(&CLUSTER), Verdict::Drop(TunnelSource)),
        ("the world", h, good, pod, None, Verdict::Drop(TunnelSource)),
        ("nobody", h, good, None, Some(&TUNNEL), Verdict::Drop(UnknownPod)),
        ("multicast", headers([224; 4], 9), good, None, Some(&TUNNEL), Verdict::Drop(Multicast)),
    ];
    for (name, headers, key, pod, source, expected) in rows {
        let verdict = from_tunnel(&headers, &config(0), &key, pod, source, || None);
        assert_eq!(verdict, expected, "{name}");
    }
    // A node that is reached by one family and sends from the other.
    let other = |node| NodeEntry { kind: NodeEntry::NODE, node, mtu: 0 };
    let (same, stranger_to_it) = (other(DIRECT.node), other(Addr::UNSPECIFIED));
    let cluster = NodeEntry { kind: NodeEntry::CLUSTER, ..same };
    for (sender, expected) in [
        (&same, Verdict::Pod(&POD, Path::TunnelToPod)),
        (&stranger_to_it, Verdict::Drop(TunnelSource)),
        (&cluster, Verdict::Drop(TunnelSource)),
    ] {
        let verdict = |source| from_tunnel(&h, &config(0), &stranger, pod, source, || Some(sender));
        assert_eq!(verdict(Some(&DIRECT)), expected);
        assert_eq!(verdict(Some(&TUNNEL)), Verdict::Drop(TunnelSource));
    }
}

#[test]
fn the_last_metre_is_for_the_pod_alone() {
    assert_eq!(to_pod(7, Some(&POD)), Verdict::Pass(Path::DeliveredToPod));
    for (name, pod) in [("other pod", Some(&OTHER)), ("host", Some(&HOST)), ("nobody", None)] {
        assert_eq!(to_pod(7, pod), Verdict::Drop(DropReason::NotForThisPod), "{name}");
    }
}

#[test]
fn what_is_plainly_local_needs_no_closer_look() {
    let plain = headers([10, 244, 1, 3], 1);
    let v6 = |protocol| Headers { family: Family::V6, header_len: 40, protocol, ..plain };
    for (what, headers, ifindex, sender, pod, expected) in [
        ("IPv4", plain, 7, Some(&POD), OTHER, true),
        ("ICMP", Headers { protocol: 1, ..plain }, 7, Some(&POD), OTHER, true),
        ("IPv4 options", Headers { header_len: 24, ..plain }, 7, Some(&POD), OTHER, false),
        ("TCP over IPv6", v6(6), 7, Some(&POD), OTHER, true),
        ("UDP over IPv6", v6(17), 7, Some(&POD), OTHER, true),
        ("IPv6 options", v6(0), 7, Some(&POD), OTHER, false),
        ("a routing header", v6(43), 7, Some(&POD), OTHER, false),
        ("a fragment of IPv6", v6(44), 7, Some(&POD), OTHER, false),
        ("ICMPv6", v6(58), 7, Some(&POD), OTHER, false),
        ("another's address", plain, 7, Some(&OTHER), POD, false),
        ("nobody's address", plain, 7, None, POD, false),
        ("the node's address", plain, 3, Some(&HOST), POD, false),
        ("to the node", plain, 7, Some(&POD), HOST, false),
    ] {
        assert_eq!(is_plainly_local(&headers, ifindex, sender, &pod), expected, "{what}");
    }
}
