//! `pw_from_pod`: packets that leave a pod. TCX ingress of the host side of its veth.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::{DropReason, PodEntry};
use dataplane_core::decide::{Details, Found, from_pod, is_plainly_local};
use dataplane_core::packet::{Carried, Family, Headers, carried, parse};
use dataplane_core::upper;

use crate::deliver;
use crate::gateway;
use crate::known_nodes::known_node;
use crate::maps;
use crate::packet::Packet;
use crate::verdict::{Program, Way, conclude, refuse};

#[classifier]
pub fn pw_from_pod(ctx: TcContext) -> i32 {
    let packet = &Packet::new(&ctx);
    let program = Program::FromPod;
    if maps::config().is_none() {
        return refuse(packet, program, None, DropReason::NoConfig);
    }
    if let Some(pod) = plainly_local(packet) {
        return deliver::plainly(packet, program, pod);
    }
    look_closer(ctx)
}

/// The receiver, if nothing about the packet has to be decided.
#[inline(always)]
fn plainly_local(packet: &Packet) -> Option<&'static PodEntry> {
    if packet.tagged() {
        return None;
    }
    let Carried::Ip(family) = carried(packet) else { return None };
    let headers = &parse(packet, family).ok()?;
    let (sender, pod) = (maps::near(&headers.source), maps::near(&headers.destination)?);
    (is_plainly_local(headers, packet.ifindex(), sender, pod) && packet.ordinary()).then_some(pod)
}

/// Decides. A function of its own, which reads the packet again, so that the way of what is plainly local is short
/// and keeps nothing for this one.
#[inline(never)]
fn look_closer(ctx: TcContext) -> i32 {
    let packet = &mut Packet::new(&ctx);
    let program = Program::FromPod;
    let Some(config) = maps::config() else {
        return refuse(packet, program, None, DropReason::NoConfig);
    };
    if packet.tagged() {
        return refuse(packet, program, None, DropReason::UnknownProtocol);
    }
    let family = match carried(packet) {
        Carried::Ip(family) => family,
        Carried::Arp => return gateway::answer_arp(packet, config),
        Carried::Other => return refuse(packet, program, None, DropReason::UnknownProtocol),
    };
    let headers = &match parse(packet, family) {
        Ok(headers) => headers,
        Err(reason) => return refuse(packet, program, None, reason),
    };
    if headers.family == Family::V6 && gateway::is_asked_for(packet, config, headers) {
        return gateway::answer_solicitation(packet, headers);
    }
    if packet.to_many() {
        return refuse(packet, program, Some(headers), DropReason::Multicast);
    }
    let sender = maps::pod(config, &headers.source);
    let pod = maps::pod(config, &headers.destination);
    let node = if pod.is_none() { known_node(config, &headers.destination) } else { None };
    let found = Found { sender, pod, node };
    let verdict = from_pod(headers, packet.ifindex(), config, found, &Lazy { packet, headers });
    conclude(&Way { packet, program, config, headers }, verdict)
}

/// Reads from the packet what the decision asks for.
struct Lazy<'a> {
    packet: &'a Packet,
    headers: &'a Headers,
}

impl Details for Lazy<'_> {
    #[inline(always)]
    fn source_routed(&self) -> bool {
        upper::source_routed(self.packet, self.headers)
    }

    #[inline(always)]
    fn udp_destination_port(&self) -> Option<u16> {
        upper::udp_destination_port(self.packet, self.headers)
    }

    #[inline(always)]
    fn wire_length(&self) -> u32 {
        upper::wire_length(self.packet, self.headers, self.packet.gso_size())
    }
}
