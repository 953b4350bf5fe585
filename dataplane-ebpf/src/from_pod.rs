//! `pw_from_pod`: packets that leave a pod. TCX ingress of the host side of its veth.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::{Config, DropReason, Flow, FlowKey};
use dataplane_core::decide::{Details, Found, Verdict, from_pod};
use dataplane_core::packet::{Carried, Family, Headers, carried, parse};
use dataplane_core::upper;

use crate::deliver;
use crate::flows::{found, remember, remembered, version_of_maps};
use crate::gateway;
use crate::maps;
use crate::packet::Packet;
use crate::verdict::{Program, Way, conclude, refuse};

#[classifier]
pub fn pw_from_pod(ctx: TcContext) -> i32 {
    let packet = &Packet::new(&ctx);
    let program = Program::FromPod;
    let Some(config) = maps::config() else {
        return refuse(packet, program, None, DropReason::NoConfig);
    };
    if let Some(flow) = known(packet, config) {
        return deliver::known(packet, program, flow);
    }
    look_closer(ctx)
}

/// The flow of the packet, if nothing about it has to be decided.
#[inline(always)]
fn known(packet: &Packet, config: &Config) -> Option<&'static Flow> {
    if packet.tagged() {
        return None;
    }
    let Carried::Ip(family) = carried(packet) else { return None };
    let headers = parse(packet, family).ok()?;
    let key = FlowKey::new(&headers, packet.ifindex(), version_of_maps(config))?;
    remembered(packet, &key)
}

/// Decides. A function of its own, which reads the packet again, so that the way of known flows is short and
/// keeps nothing for this one.
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
    let maps_version = version_of_maps(config);
    let family = match carried(packet) {
        Carried::Ip(family) => family,
        Carried::Arp => return gateway::answer_arp(packet),
        Carried::Other => return refuse(packet, program, None, DropReason::UnknownProtocol),
    };
    let headers = &match parse(packet, family) {
        Ok(headers) => headers,
        Err(reason) => return refuse(packet, program, None, reason),
    };
    if headers.family == Family::V6 && gateway::is_asked_for(packet, headers) {
        return gateway::answer_solicitation(packet, headers);
    }
    if packet.to_many() {
        return refuse(packet, program, Some(headers), DropReason::Multicast);
    }
    let found = found(packet, config, headers, || {
        let pod = maps::pod(&headers.destination);
        let node = if pod.is_none() { maps::node(&headers.destination) } else { None };
        Found { sender: maps::pod(&headers.source), pod, node }
    });
    let verdict = from_pod(headers, packet.ifindex(), config, found, &Lazy { packet, headers });
    if let Verdict::Pod(pod, _) = verdict
        && let Some(key) = FlowKey::new(headers, packet.ifindex(), maps_version)
    {
        remember(&key, pod);
    }
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
