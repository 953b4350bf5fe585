//! The result of a delegated plugin, in the shapes of all versions from 0.3.0 on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::result::everywhere;

/// What a delegated plugin gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) routes: Vec<IpNet>,
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

#[derive(Deserialize)]
struct Route {
    dst: IpNet,
}

/// Reads a result. A family without routes gets its default route.
pub(super) fn read(answer: &[u8]) -> Result<Lease, String> {
    let document: Document =
        serde_json::from_slice(answer).map_err(|error| format!("its result: {error}"))?;
    let mut addresses: Vec<IpAddr> = document.ips.iter().map(|ip| ip.address.addr()).collect();
    if addresses.is_empty() {
        return Err("its result has no address".to_owned());
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    let mut routes: BTreeSet<IpNet> =
        document.routes.iter().map(|route| route.dst.trunc()).collect();
    let has = |ipv4: bool| addresses.iter().any(|address| address.is_ipv4() == ipv4);
    if let Some(route) = routes.iter().find(|route| !has(route.addr().is_ipv4())) {
        return Err(format!("its result has the route {route} and no address of that family"));
    }
    for default in default_routes(&addresses) {
        if !routes.iter().any(|route| route.addr().is_ipv4() == default.addr().is_ipv4()) {
            routes.insert(default);
        }
    }
    Ok(Lease { addresses, routes: routes.into_iter().collect(), dns: document.dns })
}

/// The default route of each family that has an address.
pub(super) fn default_routes(addresses: &[IpAddr]) -> Vec<IpNet> {
    let mut routes: Vec<IpNet> = addresses.iter().map(|address| everywhere(*address)).collect();
    routes.sort();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(document: &Value) -> Result<Lease, String> {
        read(document.to_string().as_bytes())
    }

    fn texts(routes: &[IpNet]) -> Vec<String> {
        routes.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn a_family_without_routes_gets_its_default_route() {
        let lease = lease(&json!({
            "cniVersion": "0.4.0",
            "ips": [
                { "version": "6", "address": "fd00::5/64", "gateway": "fd00::1" },
                { "version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1" },
            ],
            "routes": [{ "dst": "10.0.0.7/8", "gw": "10.1.0.1" }, { "dst": "10.0.0.0/8" }],
            "dns": { "nameservers": ["10.1.0.53"] },
        }))
        .expect("a result");
        assert_eq!(lease.addresses[0].to_string(), "10.1.0.5");
        assert_eq!(lease.addresses[1].to_string(), "fd00::5");
        assert_eq!(texts(&lease.routes), ["10.0.0.0/8", "::/0"]);
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
