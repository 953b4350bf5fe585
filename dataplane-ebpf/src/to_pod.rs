//! `pw_to_pod`: packets from the host to a pod. TCX egress of the host side of its veth.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::DropReason;
use dataplane_core::decide::to_pod;
use dataplane_core::packet::{Carried, carried, parse};

use crate::maps;
use crate::packet::Packet;
use crate::verdict::{Program, Way, conclude, refuse};

#[classifier]
pub fn pw_to_pod(ctx: TcContext) -> i32 {
    let packet = &Packet::new(&ctx);
    let program = Program::ToPod;
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
    let verdict = to_pod(packet.ifindex(), maps::pod(config, &headers.destination));
    conclude(&Way { packet, program, config, headers }, verdict)
}
