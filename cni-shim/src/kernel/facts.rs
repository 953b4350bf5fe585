//! What the kernel says of the pod's side.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's lists of attributes grow with the kernel"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::netlink::{LinkFacts, Netlink};
use crate::error::{Context as _, KERNEL};
use crate::protocol::Failure;

/// The pod's interface with everything that ADD set.
#[derive(Debug)]
pub(crate) struct PodFacts {
    pub(crate) link: LinkFacts,
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Destinations and gateways of the routes by this interface.
    pub(crate) routes: BTreeSet<(IpNet, Option<IpAddr>)>,
    /// The permanent ones.
    pub(crate) neighbours: BTreeMap<IpAddr, [u8; 6]>,
}

impl Netlink {
    /// Looks at an interface of this namespace; none if it is not there.
    pub(crate) fn pod_facts(&self, ifname: &str) -> Result<Option<PodFacts>, Failure> {
        let Some(link) = self.link(ifname)? else { return Ok(None) };
        let what = || format!("look at {ifname}");
        let index = link.ifindex;
        let handle = self.handle();
        let get = handle.address().get().set_link_index_filter(index);
        let addresses: Vec<AddressMessage> =
            self.wait(get.execute().try_collect()).context(KERNEL, what)?;
        let neighbours: Vec<NeighbourMessage> =
            self.wait(handle.neighbours().get().execute().try_collect()).context(KERNEL, what)?;
        let mut routes = self.routes(RouteMessageBuilder::<Ipv4Addr>::new().build(), what)?;
        routes.extend(self.routes(RouteMessageBuilder::<Ipv6Addr>::new().build(), what)?);
        Ok(Some(PodFacts {
            link,
            addresses: addresses
                .iter()
                .filter(|message| message.header.index == index)
                .filter_map(address)
                .collect(),
            routes: routes.iter().filter_map(|message| route(message, index)).collect(),
            neighbours: neighbours
                .iter()
                .filter(|message| message.header.ifindex == index)
                .filter(|message| message.header.state == NeighbourState::Permanent)
                .filter_map(neighbour)
                .collect(),
        }))
    }

    /// IPv6 addresses that this namespace takes packets for.
    pub(crate) fn local_ipv6(&self) -> Result<BTreeSet<IpAddr>, Failure> {
        let query = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let routes = self.routes(query, || "list the IPv6 routes of the container".into())?;
        let local = routes.iter().filter(|message| message.header.kind == RouteType::Local);
        Ok(local.filter_map(destination).collect())
    }

    fn routes(
        &self,
        query: RouteMessage,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<RouteMessage>, Failure> {
        let routes = self.handle().route().get(query).execute();
        self.wait(routes.try_collect()).context(KERNEL, what)
    }
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    })?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

fn route(message: &RouteMessage, index: u32) -> Option<(IpNet, Option<IpAddr>)> {
    if !message.attributes.contains(&RouteAttribute::Oif(index)) {
        return None;
    }
    let gateway = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    });
    let destination = destination(message).or(match message.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    let length = message.header.destination_prefix_length;
    Some((IpNet::new(destination, length).ok()?, gateway))
}

fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, [u8; 6])> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })?;
    Some((ip, mac))
}
