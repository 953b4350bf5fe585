//! What the kernel says of the pod's side.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's lists of attributes grow with the kernel"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::LinkFacts;
use super::netlink::Netlink;
use super::route::own_table;
use super::socket::{Ask, errno};
use crate::error::{Context as _, KERNEL};
use crate::protocol::Failure;

/// The pod's interface with everything that ADD set.
#[derive(Debug)]
pub(crate) struct PodFacts {
    pub(crate) link: LinkFacts,
    pub(crate) addresses: BTreeSet<IpNet>,
    /// The routes by this interface.
    pub(crate) routes: BTreeSet<RouteFacts>,
    /// Its own table, if it has one.
    pub(crate) own_table: u32,
    /// The addresses whose packets a rule leads there.
    pub(crate) led_to_own_table: BTreeSet<IpAddr>,
    /// The permanent ones.
    pub(crate) neighbours: BTreeMap<IpAddr, [u8; 6]>,
}

/// A route.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteFacts {
    pub(crate) dst: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    /// None: that of the interface.
    pub(crate) mtu: Option<u32>,
    pub(crate) advmss: Option<u32>,
    /// None: the family's default.
    pub(crate) priority: Option<u32>,
    pub(crate) table: u32,
}

impl Netlink {
    /// Looks at an interface of this namespace; none if it is not there.
    pub(crate) fn pod_facts(&self, ifname: &str) -> Result<Option<PodFacts>, Failure> {
        let Some(link) = self.link(ifname)? else { return Ok(None) };
        let what = || format!("look at {ifname}");
        let index = link.ifindex;
        let mut filter = AddressMessage::default();
        filter.header.index = index;
        let addresses =
            self.ask(RouteNetlinkMessage::GetAddress(filter), Ask::Dump).context(KERNEL, what)?;
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let neighbours = self.ask(all, Ask::Dump).context(KERNEL, what)?;
        let mut routes = self.routes(RouteMessageBuilder::<Ipv4Addr>::new().build(), what)?;
        routes.extend(self.routes(RouteMessageBuilder::<Ipv6Addr>::new().build(), what)?);
        let own_table = own_table(index);
        Ok(Some(PodFacts {
            link,
            own_table,
            led_to_own_table: self.led_to(own_table)?,
            addresses: addresses
                .iter()
                .filter_map(|message| match message {
                    RouteNetlinkMessage::NewAddress(message) => Some(message),
                    _ => None,
                })
                .filter(|message| message.header.index == index)
                .filter_map(address)
                .collect(),
            routes: routes.iter().filter_map(|message| route(message, index)).collect(),
            neighbours: neighbours
                .iter()
                .filter_map(|message| match message {
                    RouteNetlinkMessage::NewNeighbour(message) => Some(message),
                    _ => None,
                })
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

    /// The addresses whose packets a rule leads to a table. A kernel without rules has none.
    fn led_to(&self, table: u32) -> Result<BTreeSet<IpAddr>, Failure> {
        let mut led = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RuleMessage::default();
            query.header.family = family;
            let shown = match self.ask(RouteNetlinkMessage::GetRule(query), Ask::Dump) {
                Err(error) if errno(&error) == Some(Errno::EOPNOTSUPP) => continue,
                shown => shown.context(KERNEL, || "list the rules of the container".into())?,
            };
            led.extend(shown.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRule(rule) => source_of(rule, table),
                _ => None,
            }));
        }
        Ok(led)
    }

    fn routes(
        &self,
        query: RouteMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteMessage>, Failure> {
        let shown =
            self.ask(RouteNetlinkMessage::GetRoute(query), Ask::Dump).context(KERNEL, what)?;
        let route = |message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        };
        Ok(shown.into_iter().filter_map(route).collect())
    }
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    })?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

fn route(message: &RouteMessage, index: u32) -> Option<RouteFacts> {
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
    let metrics = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    let metric = |of: fn(&RouteMetric) -> Option<u32>| metrics.into_iter().flatten().find_map(of);
    let mtu = metric(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None });
    let advmss =
        metric(|metric| if let RouteMetric::Advmss(size) = metric { Some(*size) } else { None });
    let priority = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = table.unwrap_or_else(|| message.header.table.into());
    let dst = IpNet::new(destination, length).ok()?;
    Some(RouteFacts { dst, gateway, mtu, advmss, priority, table })
}

fn source_of(rule: &RuleMessage, of_table: u32) -> Option<IpAddr> {
    let leads = |attribute: &RuleAttribute| *attribute == RuleAttribute::Table(of_table);
    rule.attributes.iter().find(|attribute| leads(attribute))?;
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Source(source) => Some(*source),
        _ => None,
    })
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
