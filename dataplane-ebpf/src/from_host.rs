//! `pw_from_host`: packets of the host stack for pods, local and remote. TCX egress of `podwire0`.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::DropReason;
use dataplane_core::decide::from_host;
use dataplane_core::packet::{Carried, carried, parse};

use crate::known_nodes::known_node;
use crate::maps;
use crate::packet::Packet;
use crate::verdict::{Program, Way, conclude, refuse};

#[classifier]
pub fn pw_from_host(ctx: TcContext) -> i32 {
    let packet = &Packet::new(&ctx);
    let program = Program::FromHost;
    let Some(config) = maps::config() else {
        return refuse(packet, program, None, DropReason::NoConfig);
    };
    let Carried::Ip(family) = carried(packet) else {
        return refuse(packet, program, None, DropReason::UnknownProtocol);
    };
    let headers = &match parse(packet, family) {
        Ok(headers) => headers,
        Err(reason) => return refuse(packet, program, None, reason),
    };
    let pod = maps::pod(config, &headers.destination);
    let node = if pod.is_none() { known_node(config, &headers.destination) } else { None };
    let verdict = from_host(headers, pod, node);
    conclude(&Way { packet, program, config, headers }, verdict)
}
