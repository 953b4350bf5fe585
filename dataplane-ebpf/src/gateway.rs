//! The gateway of the pods: nobody has its addresses, so its questions are answered here.

use aya_ebpf::bindings::TC_ACT_REDIRECT;
use aya_ebpf::helpers::bpf_redirect_peer;
use dataplane_core::abi::config::GATEWAY_MAC;
use dataplane_core::abi::{Config, Counter, DropReason, Path};
use dataplane_core::answer::{advertisement, arp_answer, arp_question, is_solicitation};
use dataplane_core::decide::may_send;
use dataplane_core::ip::Ip;
use dataplane_core::packet::{Bytes as _, Headers, source_mac};

use crate::maps;
use crate::packet::Packet;
use crate::stats::count;
use crate::verdict::{Program, refuse};

/// Answers an ARP request for the gateway; any other ARP packet ends here.
#[inline(always)]
pub(crate) fn answer_arp(packet: &mut Packet, config: &Config) -> i32 {
    let Some((sender, mac)) = arp_question(packet) else {
        return refuse(packet, Program::FromPod, None, DropReason::UnknownProtocol);
    };
    if !may_send(packet.ifindex(), maps::pod(config, &Ip::from_ipv4(sender))) {
        return refuse(packet, Program::FromPod, None, DropReason::SpoofedSource);
    }
    packet.make_ordinary();
    let Some(reply) = packet.overwrite() else {
        return refuse(packet, Program::FromPod, None, DropReason::RedirectFailed);
    };
    arp_answer(reply, sender, mac, GATEWAY_MAC);
    send_back(packet)
}

/// Whether this solicitation of a neighbour is for the gateway and from the pod itself.
#[inline(always)]
pub(crate) fn is_asked_for(packet: &Packet, config: &Config, headers: &Headers) -> bool {
    is_solicitation(packet, headers)
        && (headers.source.is_link_local()
            || may_send(packet.ifindex(), maps::pod(config, &headers.source)))
}

/// Answers a neighbour solicitation for the gateway.
#[inline(always)]
pub(crate) fn answer_solicitation(packet: &mut Packet, headers: &Headers) -> i32 {
    let Some(mac) = source_mac(packet) else {
        return refuse(packet, Program::FromPod, None, DropReason::Malformed);
    };
    packet.make_ordinary();
    let Some(reply) = packet.overwrite() else {
        return refuse(packet, Program::FromPod, None, DropReason::RedirectFailed);
    };
    advertisement(reply, headers.source.to_bytes(), mac, GATEWAY_MAC);
    send_back(packet)
}

/// Sends an answer back into the namespace that asked.
#[inline(always)]
fn send_back(packet: &Packet) -> i32 {
    // SAFETY: a plain helper call without pointers.
    let action = unsafe { bpf_redirect_peer(packet.ifindex(), 0) };
    if action == i64::from(TC_ACT_REDIRECT) {
        count(packet.length(), Counter::Path(Path::PodAnswered));
        return TC_ACT_REDIRECT;
    }
    refuse(packet, Program::FromPod, None, DropReason::RedirectFailed)
}
