//! `pw_from_tunnel`: packets from other nodes through VXLAN. TCX ingress of the VXLAN device.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::DropReason;
use dataplane_core::decide::from_tunnel;
use dataplane_core::packet::{Carried, carried, parse};

use crate::known_nodes::known_node;
use crate::maps;
use crate::packet::Packet;
use crate::tunnel;
use crate::verdict::{Program, Way, conclude, refuse};

#[classifier]
pub fn pw_from_tunnel(ctx: TcContext) -> i32 {
    let packet = &Packet::new(&ctx);
    let program = Program::FromTunnel;
    let Some(config) = maps::config() else {
        return refuse(packet, program, None, DropReason::NoConfig);
    };
    if packet.tagged() {
        return refuse(packet, program, None, DropReason::UnknownProtocol);
    }
    let Carried::Ip(family) = carried(packet) else {
        return refuse(packet, program, None, DropReason::UnknownProtocol);
    };
    let headers = &match parse(packet, family) {
        Ok(headers) => headers,
        Err(reason) => return refuse(packet, program, None, reason),
    };
    let Some(key) = tunnel::key(packet) else {
        return refuse(packet, program, Some(headers), DropReason::TunnelVni);
    };
    let pod = maps::pod(config, &headers.destination);
    let source = known_node(config, &headers.source);
    let sender = || maps::node(&key.remote);
    let verdict = from_tunnel(headers, config, &key, pod, source, sender);
    conclude(&Way { packet, program, config, headers }, verdict)
}
