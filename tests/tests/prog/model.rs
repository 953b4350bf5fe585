//! What the programs should do, computed in user space from `dataplane-core` and the fixture's tables.

use dataplane_core::abi::{Addr, Counter, DropReason, NodeEntry, Path, PodEntry, names};
use dataplane_core::answer::{arp_question, is_solicitation};
use dataplane_core::decide::{
    Details, Found, Verdict, from_host, from_net, from_pod, may_send, to_pod,
};
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Carried, Family, Headers, carried, parse};
use dataplane_core::upper::{quoted, source_routed, udp_destination_port, wire_length};

use super::fixture::Fixture;

struct Reader<'a>(&'a [u8], &'a Headers);

impl Details for Reader<'_> {
    fn source_routed(&self) -> bool {
        source_routed(self.0, self.1)
    }
    fn udp_destination_port(&self) -> Option<u16> {
        udp_destination_port(self.0, self.1)
    }
    fn wire_length(&self) -> u32 {
        wire_length(self.0, self.1, 0)
    }
}

impl Fixture {
    fn pod(&self, ip: &Ip) -> Option<&PodEntry> {
        let addr = Addr::from(*ip);
        self.pod_entries.iter().find(|(address, _)| *address == addr).map(|(_, entry)| entry)
    }

    fn node(&self, ip: &Ip) -> Option<&NodeEntry> {
        let ip = Addr::from(*ip).to_ip();
        self.node_entries
            .iter()
            .filter(|(prefix, _)| prefix.contains(&ip))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, entry)| entry)
    }

    /// The name of the counter that the packet must raise.
    pub(super) fn expected(&self, program: &str, ifindex: u32, packet: &[u8]) -> &'static str {
        let drop = |reason| Counter::Drop(reason).name();
        let lenient = program == names::PROGRAM_FROM_NET;
        if lenient && packet[..6] != self.uplink.mac.octets {
            return Path::NetPassed.name();
        }
        let family = match carried(packet) {
            Carried::Ip(family) => family,
            Carried::Arp | Carried::Other if lenient => return Path::NetPassed.name(),
            Carried::Arp if program == names::PROGRAM_FROM_POD => return self.arp(ifindex, packet),
            Carried::Arp | Carried::Other => return drop(DropReason::UnknownProtocol),
        };
        let headers = match parse(packet, family) {
            Ok(headers) => headers,
            Err(DropReason::MappedAddress) => return drop(DropReason::MappedAddress),
            Err(_) if lenient => return Path::NetPassed.name(),
            Err(reason) => return drop(reason),
        };
        match program {
            names::PROGRAM_FROM_POD => self.pod_sends(ifindex, packet, &headers),
            names::PROGRAM_TO_POD => self.name(to_pod(ifindex, self.pod(&headers.destination))),
            names::PROGRAM_FROM_HOST => {
                let pod = self.pod(&headers.destination);
                let node = self.node(&headers.destination);
                let verdict = from_host(&headers, pod, node.filter(|_| pod.is_none()));
                match self.name(verdict) {
                    // The stack keeps to the route's MTU; the kernel refuses more than the device takes with
                    // a VLAN tag (`is_skb_forwardable`).
                    "host_to_direct" if packet.len() > 14 + 4 + 1500 => DropReason::TooBig.name(),
                    name => name,
                }
            }
            names::PROGRAM_FROM_NET => {
                let Some(pod) = self.pod(&headers.destination) else {
                    return Path::NetPassed.name();
                };
                let quotes = || {
                    quoted(packet, &headers).is_some_and(|(source, destination)| {
                        source == headers.destination
                            && self.node(&destination).is_some_and(|n| n.kind != NodeEntry::NODE)
                    })
                };
                let source = self.node(&headers.source);
                self.name(from_net(&headers, &self.config, pod, source, quotes))
            }
            other => panic!("no model of {other}"),
        }
    }

    fn pod_sends(&self, ifindex: u32, packet: &[u8], headers: &Headers) -> &'static str {
        let known = headers.source.is_link_local() || may_send(ifindex, self.pod(&headers.source));
        if headers.family == Family::V6 && known && is_solicitation(packet, headers) {
            return Path::PodAnswered.name();
        }
        if packet[0] & 1 == 1 {
            return DropReason::Multicast.name();
        }
        let pod = self.pod(&headers.destination);
        let found = Found {
            sender: self.pod(&headers.source),
            pod,
            node: self.node(&headers.destination).filter(|_| pod.is_none()),
        };
        self.name(from_pod(headers, ifindex, &self.config, found, &Reader(packet, headers)))
    }

    fn arp(&self, ifindex: u32, packet: &[u8]) -> &'static str {
        match arp_question(packet) {
            None => DropReason::UnknownProtocol.name(),
            Some((ip, _)) if may_send(ifindex, self.pod(&Ip::from_ipv4(ip))) => {
                Path::PodAnswered.name()
            }
            Some(_) => DropReason::SpoofedSource.name(),
        }
    }

    /// The counter of a verdict; only the node behind the fixture's uplink has a route.
    fn name(&self, verdict: Verdict<'_>) -> &'static str {
        match verdict {
            Verdict::Direct(node, _)
                if node.node.to_ip().to_string() != super::fixture::NEIGHBOUR =>
            {
                DropReason::NoRoute.name()
            }
            Verdict::Pod(_, path)
            | Verdict::Direct(_, path)
            | Verdict::Tunnel(_, path)
            | Verdict::Host(path)
            | Verdict::Pass(path) => path.name(),
            Verdict::Drop(reason) => reason.name(),
        }
    }
}
