//! The cluster routes: those of our protocol to our device in the main table.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::dump::dump;
use super::error::{Context as _, refusal};
use super::netlink::{Netlink, unless};
use crate::kernel::{HOST_DEVICE, KernelError, Link, ROUTE_PROTOCOL, Route};

impl Netlink {
    /// Our routes, by destination. One that is not as [`Netlink::put_route`] makes it has MTU 0.
    pub(super) async fn routes(
        &self,
        interfaces: &BTreeMap<String, Link>,
    ) -> Result<BTreeMap<IpNet, Route>, KernelError> {
        let mut routes: BTreeMap<IpNet, Route> = BTreeMap::new();
        let Some(host) = interfaces.get(HOST_DEVICE).map(|link| link.ifindex) else {
            return Ok(routes);
        };
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.table = RouteHeader::RT_TABLE_MAIN;
            filter.header.protocol = protocol();
            let listed = dump(RouteNetlinkMessage::GetRoute(filter), |entry| {
                let RouteNetlinkMessage::NewRoute(message) = entry else { return };
                if !is_ours(&message, host) {
                    return;
                }
                let Some(destination) = destination(&message) else { return };
                let route = route(&message);
                // Of two with the same destination the right one counts: it is not to be made anew.
                if route.mtu != 0 || !routes.contains_key(&destination) {
                    routes.insert(destination, route);
                }
            });
            match listed.await {
                // A kernel without IPv6 has no such table.
                Err(error)
                    if family == AddressFamily::Inet6
                        && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                result => result.context(|| "list the routes".to_owned())?,
            }
        }
        Ok(routes)
    }

    pub(super) async fn put_route(
        &self,
        destination: IpNet,
        route: &Route,
    ) -> Result<(), KernelError> {
        let what = || format!("put the route {destination} dev {HOST_DEVICE} src {}", route.source);
        let index = Self::index(HOST_DEVICE)?;
        let metrics = RouteAttribute::Metrics(vec![RouteMetric::Mtu(route.mtu)]);
        let mut message = match (destination, route.source) {
            (IpNet::V4(net), IpAddr::V4(source)) => {
                ipv4_route(net).output_interface(index).pref_source(source).build()
            }
            (IpNet::V6(net), IpAddr::V6(source)) => {
                ipv6_route(net).output_interface(index).pref_source(source).build()
            }
            (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => {
                return Err(refusal(what(), "the source is of the other family"));
            }
        };
        message.attributes.push(metrics);
        self.handle.route().add(message).replace().execute().await.context(what)
    }

    pub(super) async fn remove_route(&self, destination: IpNet) -> Result<(), KernelError> {
        // With the device go its routes.
        let Ok(index) = Self::index(HOST_DEVICE) else { return Ok(()) };
        let any = RouteScope::NoWhere;
        let message = match destination {
            IpNet::V4(net) => ipv4_route(net).scope(any).output_interface(index).build(),
            IpNet::V6(net) => ipv6_route(net).scope(any).output_interface(index).build(),
        };
        let result = self.handle.route().del(message).execute().await;
        unless(result, &[libc::ESRCH]).context(|| format!("remove the route {destination}"))
    }
}

fn protocol() -> RouteProtocol {
    RouteProtocol::from(ROUTE_PROTOCOL)
}

fn ipv4_route(net: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(net.network(), net.prefix_len())
        .protocol(protocol())
        .scope(RouteScope::Link)
}

fn ipv6_route(net: Ipv6Net) -> RouteMessageBuilder<Ipv6Addr> {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(net.network(), net.prefix_len())
        .protocol(protocol())
        .scope(RouteScope::Link)
}

/// Kernels before the filter send all routes. Numbers of protocols belong to nobody, so the device
/// decides too; and what [`Netlink::remove_route`] cannot name is not ours.
fn is_ours(message: &RouteMessage, host: u32) -> bool {
    message.header.protocol == protocol()
        && message.header.table == RouteHeader::RT_TABLE_MAIN
        && message.header.kind == RouteType::Unicast
        && message.header.tos == 0
        && message.attributes.contains(&RouteAttribute::Oif(host))
}

pub(super) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let ip = message.attributes.iter().find_map(|attribute| match ip_of(attribute) {
        Some((Field::Destination, ip)) => Some(ip),
        Some((Field::Source | Field::Gateway, _)) | None => None,
    });
    let is_ipv4 = message.header.address_family == AddressFamily::Inet;
    // The default route has no destination.
    let unspecified: IpAddr =
        if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    IpNet::new(ip.unwrap_or(unspecified), message.header.destination_prefix_length).ok()
}

fn route(message: &RouteMessage) -> Route {
    let mut source = None;
    let mut mtu = 0;
    let mut is_plain = true;
    let is_ipv4 = message.header.address_family == AddressFamily::Inet;
    if is_ipv4 && message.header.scope != RouteScope::Link {
        is_plain = false;
    }
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are not set by us")]
        match attribute {
            RouteAttribute::Metrics(metrics) => {
                let mut mtus = metrics.iter().filter_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                mtu = mtus.next_back().unwrap_or(0);
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                is_plain = false;
            }
            RouteAttribute::Priority(_) if is_ipv4 => is_plain = false,
            other => {
                if let Some((Field::Source, ip)) = ip_of(other) {
                    source = Some(ip);
                }
            }
        }
    }
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Route { source: source.unwrap_or(unspecified), mtu: if is_plain { mtu } else { 0 } }
}

pub(super) enum Field {
    Destination,
    Gateway,
    Source,
}

pub(super) fn ip_of(attribute: &RouteAttribute) -> Option<(Field, IpAddr)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are no addresses of IP")]
    let (field, address) = match attribute {
        RouteAttribute::Destination(address) => (Field::Destination, address),
        RouteAttribute::Gateway(address) => (Field::Gateway, address),
        RouteAttribute::PrefSource(address) => (Field::Source, address),
        _ => return None,
    };
    match address {
        RouteAddress::Inet(ip) => Some((field, IpAddr::V4(*ip))),
        RouteAddress::Inet6(ip) => Some((field, IpAddr::V6(*ip))),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}
