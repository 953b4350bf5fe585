//! Tells when the kernel changes something that may be ours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::error::Context as _;
use super::route::destination;
use crate::kernel::{Event, KernelError, NFT_TABLE, ROUTE_PROTOCOL};
use crate::model::is_pod_interface;

/// Groups of `linux/rtnetlink.h`: link; addresses, routes and rules of IPv4 and IPv6; next hops.
const ROUTE_GROUPS: [u32; 8] = [1, 5, 9, 7, 11, 8, 19, 32];
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const NFT_GROUP: u32 = 7;
/// `XFRMNLGRP_POLICY` of `linux/xfrm.h`.
const POLICY_GROUP: u32 = 4;
/// Events that may wait; for a slower reader the socket overflows and says so: none is lost.
const WAITING: usize = 256;
/// Bytes of the two headers before the attributes of a message of nftables.
const NFT_HEADERS: usize = 20;

/// What the watcher and the looks tell each other about the ways to other nodes.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Rises when a way may have changed.
    version: AtomicU64,
    /// Addresses of other nodes: a route to none of them is not ours to follow.
    peers: Mutex<BTreeSet<IpAddr>>,
}

impl Ways {
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn set_peers(&self, peers: BTreeSet<IpAddr>) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    fn have_changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn concern(&self, route: &RouteMessage) -> bool {
        // As the default route, one whose prefix is not understood may lead anywhere.
        let range = match destination(route) {
            Some(IpNet::V4(net)) => IpAddr::V4(net.network())..=IpAddr::V4(net.broadcast()),
            Some(IpNet::V6(net)) => IpAddr::V6(net.network())..=IpAddr::V6(net.broadcast()),
            None => return true,
        };
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.range(range).next().is_some()
    }
}

/// Begins to watch. Must be called inside a tokio runtime.
///
/// # Errors
/// When the sockets cannot be opened.
pub(super) fn watch(ways: Arc<Ways>) -> Result<Receiver<Event>, KernelError> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let route = socket(NETLINK_ROUTE, &ROUTE_GROUPS)?;
    let nft = socket(NETLINK_NETFILTER, &[NFT_GROUP])?;
    let read = {
        let ways = Arc::clone(&ways);
        move |bytes: &[u8]| route_events(bytes, &ways)
    };
    tokio::spawn(forward(route, sender.clone(), Arc::clone(&ways), read));
    tokio::spawn(forward(nft, sender.clone(), Arc::clone(&ways), nft_events));
    // A kernel without IPsec has no such socket, and no policies.
    if let Ok(policies) = socket(NETLINK_XFRM, &[POLICY_GROUP]) {
        tokio::spawn(forward(policies, sender, ways, |_| vec![Event::Changed]));
    }
    Ok(receiver)
}

fn socket(protocol: isize, groups: &[u32]) -> Result<TokioSocket, KernelError> {
    let what = || "open a netlink socket to watch changes".to_owned();
    let mut socket = TokioSocket::new(protocol).context(what)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0)).context(what)?;
    for group in groups {
        socket.socket_mut().add_membership(*group).context(what)?;
    }
    Ok(socket)
}

/// Runs until nobody reads any more.
async fn forward(
    socket: TokioSocket,
    sender: Sender<Event>,
    ways: Arc<Ways>,
    read: impl Fn(&[u8]) -> Vec<Event>,
) {
    loop {
        let events = match socket.recv_from_full().await {
            Ok((bytes, _)) => read(&bytes),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                tracing::debug!("the kernel had more changes than the socket holds");
                ways.have_changed();
                vec![Event::Changed]
            }
            Err(error) => {
                tracing::warn!(%error, "changes are no longer watched, only looked for");
                // The other watcher goes on, so that the channel does not end.
                let _ = sender.send(Event::Lost).await;
                return;
            }
        };
        for event in events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// At most one `Changed` for a whole datagram.
fn route_events(bytes: &[u8], ways: &Ways) -> Vec<Event> {
    let mut events = Vec::new();
    let mut has_changed = false;
    let mut has_way_changed = false;
    for message in messages(bytes) {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            (has_changed, has_way_changed) = (true, true);
            continue;
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) =
            &message
        {
            // A routing daemon changes thousands; who takes the place of ours is seen by looking.
            has_changed |= route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
            has_way_changed |= ways.concern(route);
            continue;
        }
        has_changed = true;
        has_way_changed |= !is_of_pod(&message);
        let RouteNetlinkMessage::DelLink(link) = message else { continue };
        // A port that leaves a bridge is announced in the same way, under the bridge's family.
        if link.header.interface_family != AddressFamily::Unspec {
            continue;
        }
        let name = link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute { Some(name.clone()) } else { None }
        });
        events.push(Event::LinkRemoved {
            ifindex: link.header.index,
            name: name.unwrap_or_default(),
        });
    }
    if has_way_changed {
        ways.have_changed();
    }
    if has_changed || has_way_changed {
        events.push(Event::Changed);
    }
    events
}

/// The interfaces of pods come and go, and lead to no node.
fn is_of_pod(message: &RouteNetlinkMessage) -> bool {
    let (RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) = message else {
        return false;
    };
    link.attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::IfName(name) if is_pod_interface(name)))
}

/// Other tables change all the time on a node with kube-proxy: only ours counts.
fn nft_events(bytes: &[u8]) -> Vec<Event> {
    let name = [NFT_TABLE.as_bytes(), b"\0"].concat();
    let is_ours = |message: &[u8]| {
        attributes(message.get(NFT_HEADERS..).unwrap_or_default())
            // 1 is the table's name in all messages (`NFTA_TABLE_NAME`, `NFTA_RULE_TABLE`, ...).
            .any(|(kind, value)| kind == 1 && value == name)
    };
    if messages(bytes).any(is_ours) { vec![Event::Changed] } else { Vec::new() }
}

/// Splits a datagram into netlink messages, each with its header.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    chunks(bytes, |bytes| {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?);
        (length >= 16).then_some(length as usize)
    })
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    chunks(bytes, |bytes| {
        let length = u16::from_ne_bytes(*bytes.first_chunk()?);
        (length >= 4).then_some(usize::from(length))
    })
    .map(|attribute| (u16::from_ne_bytes([attribute[2], attribute[3]]), &attribute[4..]))
}

/// Parts that begin with their length and are aligned to four bytes.
fn chunks(mut rest: &[u8], length: impl Fn(&[u8]) -> Option<usize>) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = length(rest)?;
        let chunk = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkMessage;
    use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};

    use super::*;

    fn nft_message(table: &[u8]) -> Vec<u8> {
        let mut message = vec![0; NFT_HEADERS];
        message.extend(u16::try_from(4 + table.len()).unwrap().to_ne_bytes());
        message.extend(1_u16.to_ne_bytes());
        message.extend(table);
        message.resize(message.len().next_multiple_of(4), 0);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    #[test]
    fn only_our_table_is_a_change() {
        assert!(matches!(nft_events(&nft_message(b"podwire\0"))[..], [Event::Changed]));
        assert!(nft_events(&nft_message(b"podwire2\0")).is_empty());
        let both = [nft_message(b"kube-proxy\0"), nft_message(b"podwire\0")].concat();
        assert_eq!(nft_events(&both).len(), 1);
    }

    #[test]
    fn only_our_routes_and_those_to_other_nodes_are_a_change() {
        let ways = Ways::default();
        ways.set_peers(["192.168.1.12".parse().unwrap(), "fd00:1::12".parse().unwrap()].into());
        let to = |protocol: u8, destination: [u8; 4], length: u8| {
            let mut route = RouteMessage::default();
            route.header.protocol = RouteProtocol::from(protocol);
            route.header.address_family = AddressFamily::Inet;
            route.header.destination_prefix_length = length;
            let address = RouteAddress::Inet(destination.into());
            route.attributes.push(RouteAttribute::Destination(address));
            let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(route));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let route = |protocol: u8| to(protocol, [10, 0, 0, 0], 8);
        assert!(matches!(route_events(&route(ROUTE_PROTOCOL), &ways)[..], [Event::Changed]));
        assert!(route_events(&route(80), &ways).is_empty());
        assert_eq!(route_events(&[route(80), route(ROUTE_PROTOCOL)].concat(), &ways).len(), 1);
        assert_eq!(ways.version(), 0);
        for (destination, length) in
            [([192, 168, 1, 12], 32), ([192, 168, 1, 0], 24), ([0, 0, 0, 0], 0)]
        {
            assert_eq!(route_events(&to(80, destination, length), &ways), [Event::Changed]);
        }
        assert_eq!(ways.version(), 3);
        assert!(route_events(&to(80, [192, 168, 2, 0], 24), &ways).is_empty());
    }

    #[test]
    fn the_interface_of_a_pod_changes_no_way() {
        let ways = Ways::default();
        let link = |name: &str| {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        assert_eq!(route_events(&link("pwabcdefghijklm"), &ways), [Event::Changed]);
        assert_eq!(ways.version(), 0);
        assert_eq!(route_events(&link("eth0"), &ways), [Event::Changed]);
        assert_eq!(ways.version(), 1);
    }

    #[test]
    fn garbage_ends_the_reading() {
        assert!(nft_events(&[]).is_empty());
        assert!(nft_events(&[0; 64]).is_empty());
        assert!(nft_events(&[0xff; 64]).is_empty());
        assert!(route_events(&[3, 0, 0, 0], &Ways::default()).is_empty());
    }
}
