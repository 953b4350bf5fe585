//! The result of a delegated plugin, in the shapes of all versions from 0.3.0 on.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::result::{Route, everywhere, gateway};

/// What a delegated plugin gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Value,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    ips: Vec<Ip>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    dns: Value,
}

/// Prefix and gateway are not read: a pod is alone behind its interface, whose gateway is always ours.
#[derive(Deserialize)]
struct Ip {
    address: IpNet,
}

/// Reads a result. Routes go by our gateway, whatever theirs is; a family without routes gets its default route.
pub(super) fn read(answer: &[u8]) -> Result<Lease, String> {
    let document: Document =
        serde_json::from_slice(answer).map_err(|error| format!("its result: {error}"))?;
    let mut addresses: Vec<IpAddr> = document.ips.iter().map(|ip| ip.address.addr()).collect();
    if addresses.is_empty() {
        return Err("its result has no address".to_owned());
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    let mut routes: Vec<Route> = document
        .routes
        .into_iter()
        .map(|route| Route { dst: route.dst.trunc(), gw: Some(gateway(route.dst.addr())), ..route })
        .collect();
    routes.sort_by_key(|route| (route.dst, route.table, route.priority));
    routes.dedup_by_key(|route| (route.dst, route.table, route.priority));
    let has = |ipv4: bool| addresses.iter().any(|address| address.is_ipv4() == ipv4);
    if let Some(Route { dst, .. }) = routes.iter().find(|route| !has(route.dst.addr().is_ipv4())) {
        return Err(format!("its result has the route {dst} and no address of that family"));
    }
    for default in default_routes(&addresses) {
        let is_like = |route: &Route| route.dst.addr().is_ipv4() == default.dst.addr().is_ipv4();
        if !routes.iter().any(is_like) {
            routes.push(default);
        }
    }
    Ok(Lease { addresses, routes, dns: document.dns })
}

/// The default route of each family that has an address.
pub(super) fn default_routes(addresses: &[IpAddr]) -> Vec<Route> {
    let mut everywhere: Vec<IpNet> = addresses.iter().map(|ip| everywhere(*ip)).collect();
    everywhere.sort();
    everywhere.dedup();
    everywhere.into_iter().map(Route::new).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(document: &Value) -> Result<Lease, String> {
        read(document.to_string().as_bytes())
    }

    fn texts(routes: &[Route]) -> Vec<String> {
        let text = |r: &Route| format!("{} {:?} {:?}", r.dst, r.gw.expect("a gateway"), r.priority);
        routes.iter().map(text).collect()
    }

    #[test]
    fn a_family_without_routes_gets_its_default_route() {
        let lease = lease(&json!({
            "cniVersion": "0.4.0",
            "ips": [
                { "version": "6", "address": "fd00::5/64", "gateway": "fd00::1" },
                { "version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1" },
            ],
            "routes": [{ "dst": "10.0.0.7/8", "gw": "10.1.0.1" }, { "dst": "10.0.0.0/8" },
                { "dst": "10.0.0.0/8", "priority": 7 }],
            "dns": { "nameservers": ["10.1.0.53"] },
        }))
        .expect("a result");
        assert_eq!(lease.addresses[0].to_string(), "10.1.0.5");
        assert_eq!(lease.addresses[1].to_string(), "fd00::5");
        assert_eq!(
            texts(&lease.routes),
            ["10.0.0.0/8 169.254.1.1 None", "10.0.0.0/8 169.254.1.1 Some(7)", "::/0 fe80::1 None"]
        );
        assert_eq!(lease.dns["nameservers"][0], "10.1.0.53");
    }

    #[test]
    fn results_without_sense_are_refused() {
        for (document, why) in [
            (json!({}), "no address"),
            (json!({ "ips": [{ "address": "10.1.0.300/24" }] }), "its result: "),
            (
                json!({ "ips": [{ "address": "10.1.0.3/24" }], "routes": [{ "dst": "::/0" }] }),
                "the route ::/0 and no address of that family",
            ),
        ] {
            let error = lease(&document).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        assert!(read(b"").is_err());
    }
}
