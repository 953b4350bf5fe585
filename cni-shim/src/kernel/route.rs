//! The container's routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteScope};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use super::socket::{Ask, errno};
use crate::error::{Context as _, KERNEL, failure};
use crate::protocol::Failure;
use crate::result::{Route, gateway};

/// Tables of second interfaces: this and the interface's index. The kernel's own end at 255, and those of
/// the plugin `sbr` begin at 100.
const FIRST_TABLE: u32 = 7000;

/// The table of an interface whose routes another one has already.
pub(super) fn own_table(index: u32) -> u32 {
    FIRST_TABLE + index
}

/// An interface that gets routes.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) ifname: &'a str,
    pub(super) index: u32,
    pub(super) addresses: &'a [IpAddr],
}

impl Netlink {
    /// Sets routes by our gateway. Returns those that the container has now: all, but for those that it had
    /// by another interface.
    pub(super) fn add_routes(&self, way: Way<'_>, routes: &[Route]) -> Result<Vec<Route>, Failure> {
        let mut held = Vec::new();
        let gateways: BTreeSet<IpAddr> = way.addresses.iter().map(|ip| gateway(*ip)).collect();
        for gateway in gateways {
            let is_of_family = |route: &&Route| route.dst.addr().is_ipv4() == gateway.is_ipv4();
            let routes: Vec<&Route> = routes.iter().filter(is_of_family).collect();
            let by_gateway = self.add_route_to_gateway(way, gateway, None)?;
            let mut taken = !by_gateway;
            for route in &routes {
                let message = message(way.index, route, gateway, !by_gateway)?;
                if self.add_route(way, message)? {
                    held.push((*route).clone());
                } else {
                    taken = true;
                }
            }
            if taken {
                self.add_own_table(way, &routes, gateway)?;
            }
        }
        Ok(held)
    }

    /// In IPv4 the gateway needs a route of its own; false if another interface of ours has it.
    fn add_route_to_gateway(
        &self,
        way: Way<'_>,
        gateway: IpAddr,
        table: Option<u32>,
    ) -> Result<bool, Failure> {
        let IpAddr::V4(gateway) = gateway else { return Ok(true) };
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .output_interface(way.index)
            .scope(RouteScope::Link);
        if let Some(table) = table {
            message = message.table_id(table);
        }
        self.add_route(way, message.build())
    }

    /// Adds a route; false if it is there by another interface.
    fn add_route(&self, way: Way<'_>, message: RouteMessage) -> Result<bool, Failure> {
        match self.ask(RouteNetlinkMessage::NewRoute(message), Ask::Create) {
            Err(error) if errno(&error) == Some(Errno::EEXIST) => Ok(false),
            result => result
                .map(|_| true)
                .context(KERNEL, || format!("set the routes of {} in the container", way.ifname)),
        }
    }

    /// What the container sends from these addresses leaves by this interface, as no other may send it: a
    /// rule leads it to a table with the interface's routes. What the container sends otherwise is not
    /// touched. The table goes with the interface. The rule stays until the namespace goes, and leads to an
    /// empty table, which is as if it were not there.
    fn add_own_table(
        &self,
        way: Way<'_>,
        routes: &[&Route],
        gateway: IpAddr,
    ) -> Result<(), Failure> {
        let (ifname, table) = (way.ifname, own_table(way.index));
        self.add_route_to_gateway(way, gateway, Some(table))?;
        for route in routes {
            let route = Route { table: Some(table), ..(*route).clone() };
            let message = message(way.index, &route, gateway, true)?;
            self.ask(RouteNetlinkMessage::NewRoute(message), Ask::Replace)
                .context(KERNEL, || format!("set the routes of {ifname} in the table {table}"))?;
        }
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == gateway.is_ipv4();
        for ip in way.addresses.iter().filter(of_family) {
            match self.ask(RouteNetlinkMessage::NewRule(rule(*ip, table)), Ask::Create) {
                // Of an earlier interface with the same index and address.
                Err(error) if errno(&error) == Some(Errno::EEXIST) => {}
                Err(error) if errno(&error) == Some(Errno::EOPNOTSUPP) => {
                    return Err(failure(
                        KERNEL,
                        format!("{ifname} would be a second interface with the same routes"),
                        "that needs a kernel with policy routing (IP_MULTIPLE_TABLES, \
                         IPV6_MULTIPLE_TABLES)",
                    ));
                }
                result => result.map(drop).context(KERNEL, || {
                    format!("set the rule of {ip} on {ifname} in the container")
                })?,
            }
        }
        Ok(())
    }
}

/// What is sent from an address goes by a table.
fn rule(source: IpAddr, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    let (family, length) =
        if source.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.header.family = family;
    message.header.src_len = length;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Table(table), RuleAttribute::Source(source)];
    message
}

/// A route by our gateway, which needs no route to it if it is `onlink`.
fn message(
    index: u32,
    route: &Route,
    gateway: IpAddr,
    onlink: bool,
) -> Result<RouteMessage, Failure> {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.dst.network(), route.dst.prefix_len())
        .and_then(|builder| builder.gateway(gateway))
        .context(KERNEL, || format!("the route to {} by {gateway}", route.dst))?
        .output_interface(index);
    if onlink && gateway.is_ipv4() {
        builder = builder.onlink();
    }
    if let Some(table) = route.table {
        builder = builder.table_id(table);
    }
    if let Some(priority) = route.priority {
        builder = builder.priority(priority);
    }
    let metrics: Vec<RouteMetric> =
        [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)]
            .into_iter()
            .flatten()
            .collect();
    if !metrics.is_empty() {
        builder.get_mut().attributes.push(RouteAttribute::Metrics(metrics));
    }
    Ok(builder.build())
}
