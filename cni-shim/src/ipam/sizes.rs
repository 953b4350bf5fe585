//! The largest packet of each route.

use crate::protocol::Near;
use crate::result::Route;

/// The routes of a pod whose interface has the MTU of `near`: what leads elsewhere gets `mtu`, and each network
/// of this node gets a route beside the wider one that leads to it. A route that has an MTU already stays.
///
/// The node's own addresses are elsewhere, as what the host stack has translated is sent there: in IPv6 it could
/// not be cut for the way that it takes from there.
pub(super) fn sized(routes: Vec<Route>, mtu: u32, near: &Near) -> Vec<Route> {
    let mut sized: Vec<Route> = Vec::new();
    for route in &routes {
        let is_wider = |cidr: &&ipnet::IpNet| route.dst != **cidr && route.dst.contains(*cidr);
        let own = near.cidrs.iter().filter(|_| route.mtu.is_none()).filter(is_wider);
        sized.extend(own.map(|cidr| Route { dst: *cidr, ..route.clone() }));
    }
    let is_near = |cidr: &ipnet::IpNet| near.cidrs.iter().any(|near| near.contains(cidr));
    for node in near.node.iter().copied().map(ipnet::IpNet::from) {
        let routes = routes.iter().chain(&sized).filter(|route| route.mtu.is_none());
        let by_it = routes.filter(|route| is_near(&route.dst) && route.dst.contains(&node));
        let to_node = |route: &Route| Route { dst: node, mtu: Some(mtu), ..route.clone() };
        let more: Vec<Route> = by_it.map(to_node).collect();
        sized.extend(more);
    }
    for route in routes {
        let mtu = route.mtu.or((!is_near(&route.dst)).then_some(mtu));
        sized.push(Route { mtu, ..route });
    }
    sized.sort_by_key(|route| (route.dst, route.table, route.priority));
    sized.dedup_by_key(|route| (route.dst, route.table, route.priority));
    sized
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
        sized(routes.iter().map(route).collect(), 1450, &near).iter().map(text).collect()
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
        assert_eq!(sized_texts(&[("192.0.2.0/24", None)]), ["192.0.2.0/24 1450"]);
    }
}
