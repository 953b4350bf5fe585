//! `pw_from_net`: packets from the network. TCX ingress of the devices with the node's addresses.
//!
//! What is not for a pod is none of its business: it goes on to the stack untouched.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::{Config, DropReason, NodeEntry, Path};
use dataplane_core::decide::from_net;
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Carried, Family, Headers, carried, parse};
use dataplane_core::upper::quoted;

use crate::known_nodes::known_node;
use crate::maps;
use crate::packet::Packet;
use crate::verdict::{Program, Way, conclude, pass, refuse};

#[classifier]
pub fn pw_from_net(ctx: TcContext) -> i32 {
    let packet = &Packet::new(&ctx);
    let program = Program::FromNet;
    if !packet.ordinary() {
        return pass(packet, program, Path::NetPassed);
    }
    let (Some(config), Carried::Ip(family)) = (maps::config(), carried(packet)) else {
        return pass(packet, program, Path::NetPassed);
    };
    let headers = &match parse(packet, family) {
        Ok(headers) => headers,
        Err(reason) if reason == DropReason::MappedAddress => {
            return refuse(packet, program, None, reason);
        }
        Err(_) => return pass(packet, program, Path::NetPassed),
    };
    if is_own(config, headers) {
        return pass(packet, program, Path::NetPassed);
    }
    let Some(pod) = maps::pod(config, &headers.destination) else {
        return pass(packet, program, Path::NetPassed);
    };
    let source = known_node(config, &headers.source);
    let verdict = from_net(headers, config, pod, source, || quotes_cluster(packet, headers));
    conclude(&Way { packet, program, config, headers }, verdict)
}

/// Whether it is for this node's registered address, as what comes through the tunnel is. No pod has that.
#[inline(always)]
fn is_own(config: &Config, headers: &Headers) -> bool {
    let own = match headers.family {
        Family::V4 => &config.node_ipv4,
        Family::V6 => &config.node_ipv6,
    };
    headers.destination == Ip::from(own)
}

/// Whether this is an ICMP error about a packet that its destination sent to a pod elsewhere.
#[inline(always)]
fn quotes_cluster(packet: &Packet, headers: &Headers) -> bool {
    let Some((source, destination)) = quoted(packet, headers) else { return false };
    source == headers.destination
        && matches!(maps::node(&destination), Some(node) if node.kind != NodeEntry::NODE)
}
