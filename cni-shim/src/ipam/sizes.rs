//! The largest packet of each route.

use dataplane_core::upper::{IPV6_MTU_MIN, JUMBO_LEN};
use ipnet::IpNet;

use crate::protocol::Near;
use crate::result::Route;

/// The routes of a pod whose interface has the MTU of `near`: what leads elsewhere gets `mtu`, and each network
/// of this node gets a route beside the wider one that leads to it. A route that has an MTU already stays.
///
/// The node's own addresses are elsewhere, as what the host stack has translated is sent there: in IPv6 it could
/// not be cut for the way that it takes from there.
pub(super) fn sized(routes: &[Route], mtu: u32, near: &Near) -> Vec<Route> {
    let nodes: Vec<IpNet> = near.node.iter().copied().map(IpNet::from).collect();
    let is_near =
        |dst: &IpNet| near.cidrs.iter().any(|cidr| cidr.contains(dst)) && !nodes.contains(dst);
    let mut sized = routes.to_vec();
    for dst in near.cidrs.iter().chain(&nodes) {
        let around = routes.iter().filter(|route| route.dst.contains(dst));
        // One with an MTU of its own holds for all that it leads to.
        let limited = around.clone().filter(|route| route.mtu.is_some());
        let is_free = |route: &&Route| {
            route.mtu.is_none() && !limited.clone().any(|other| route.dst.contains(&other.dst))
        };
        sized.extend(
            around.clone().filter(is_free).map(|route| Route { dst: *dst, ..route.clone() }),
        );
    }
    for route in &mut sized {
        route.mtu = route.mtu.or((!is_near(&route.dst)).then_some(mtu));
    }
    sized.sort_by_key(|route| (route.dst, route.table, route.priority));
    sized.dedup_by_key(|route| (route.dst, route.table, route.priority));
    sized
}

/// The same for a pod whose packets of IPv6 may be longer than 64 KiB. The kernel puts the header of a jumbogram
/// in front of those, counts it as part of each segment when it forwards them (`skb_gso_network_seglen`, as of
/// 6.18), and would answer that segments made for the path are too big for it, again and again.
pub(super) fn with_room_for_jumbograms(routes: Vec<Route>, mtu: u32) -> Vec<Route> {
    let smaller = |route: Route| {
        if route.dst.addr().is_ipv4() {
            return route;
        }
        let mtu = route.mtu.unwrap_or(mtu);
        Route { mtu: Some(mtu.saturating_sub(JUMBO_LEN).max(IPV6_MTU_MIN)), ..route }
    };
    routes.into_iter().map(smaller).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized_texts(routes: &[(&str, Option<u32>)]) -> Vec<String> {
        let cidrs = ["10.244.1.0/24", "fd00:1::/64"].map(|cidr| cidr.parse().expect("a network"));
        let node = ["10.244.1.1", "fd00:1::1"].map(|ip| ip.parse().expect("an address"));
        let near = Near { mtu: 1500, cidrs: cidrs.into(), node: node.into() };
        let route = |(dst, mtu): &(&str, Option<u32>)| Route {
            mtu: *mtu,
            ..Route::new(dst.parse().expect("a network"))
        };
        let text = |route: &Route| match route.mtu {
            Some(mtu) => format!("{} {mtu}", route.dst),
            None => route.dst.to_string(),
        };
        let routes: Vec<Route> = routes.iter().map(route).collect();
        sized(&routes, 1450, &near).iter().map(text).collect()
    }

    #[test]
    fn what_is_near_gets_a_route_without_a_limit() {
        assert_eq!(
            sized_texts(&[("0.0.0.0/0", None), ("::/0", None)]),
            [
                "0.0.0.0/0 1450",
                "10.244.1.0/24",
                "10.244.1.1/32 1450",
                "::/0 1450",
                "fd00:1::/64",
                "fd00:1::1/128 1450"
            ]
        );
    }

    #[test]
    fn routes_that_were_given_lead_where_they_did() {
        assert_eq!(
            sized_texts(&[
                ("10.244.0.0/16", None),
                ("10.244.1.0/24", None),
                ("10.244.1.7/32", None)
            ]),
            ["10.244.0.0/16 1450", "10.244.1.0/24", "10.244.1.1/32 1450", "10.244.1.7/32"]
        );
        assert_eq!(sized_texts(&[("10.0.0.0/8", Some(1300))]), ["10.0.0.0/8 1300"]);
        assert_eq!(
            sized_texts(&[("0.0.0.0/0", None), ("10.244.1.0/24", Some(1300))]),
            ["0.0.0.0/0 1450", "10.244.1.0/24 1300"]
        );
        assert_eq!(sized_texts(&[("192.0.2.0/24", None)]), ["192.0.2.0/24 1450"]);
    }

    #[test]
    fn what_is_ipv6_leaves_room_for_the_header_of_jumbograms() {
        let route = |dst: &str, mtu| Route { mtu, ..Route::new(dst.parse().unwrap()) };
        let routes = [
            route("0.0.0.0/0", None),
            route("::/0", None),
            route("fd00::/64", Some(1400)),
            route("fd01::/64", Some(1282)),
        ];
        let smaller = with_room_for_jumbograms(routes.into(), 1500);
        let mtus: Vec<Option<u32>> = smaller.iter().map(|route| route.mtu).collect();
        assert_eq!(mtus, [None, Some(1492), Some(1392), Some(1280)]);
    }
}
