//! What of `/proc/sys` a forwarding node needs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::uplinks;
use crate::kernel::{HOST_DEVICE, Link, Observed};
use crate::model::{Model, Node};

/// The values below `/proc/sys` that [`compile`](super::compile) needs to see, given these interfaces.
pub fn watched_sysctls(model: &Model, observed: &Observed) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/conf/all/send_redirects",
        "net/ipv4/conf/all/rp_filter",
    ]
    .map(str::to_owned)
    .into();
    if observed.interfaces.contains_key(HOST_DEVICE) {
        paths.insert(format!("net/ipv4/conf/{HOST_DEVICE}/send_redirects"));
        paths.insert(format!("net/ipv4/conf/{HOST_DEVICE}/forwarding"));
        paths.insert(format!("net/ipv6/conf/{HOST_DEVICE}/forwarding"));
    }
    for uplink in model.own().iter().flat_map(|own| uplinks(model, own, observed)) {
        paths.insert(format!("net/ipv4/conf/{}/rp_filter", uplink.name));
        paths.insert(format!("net/ipv6/conf/{}/accept_ra", uplink.name));
    }
    paths
}

/// The values that are wanted.
pub(super) fn wanted(
    own: &Node,
    uplinks: &[&Link],
    observed: &Observed,
) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::new();
    let mut want = |path: String, value: &str| wanted.insert(path, value.to_owned());
    want("net/ipv4/conf/all/send_redirects".to_owned(), "0");
    let has_host = observed.interfaces.contains_key(HOST_DEVICE);
    if has_host {
        want(format!("net/ipv4/conf/{HOST_DEVICE}/send_redirects"), "0");
    }
    if own.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V4(_))) {
        want("net/ipv4/ip_forward".to_owned(), "1");
        // The kernel asks for this one when it looks up a route for a program, too.
        if has_host {
            want(format!("net/ipv4/conf/{HOST_DEVICE}/forwarding"), "1");
        }
    }
    if own.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_))) {
        want("net/ipv6/conf/all/forwarding".to_owned(), "1");
        if has_host {
            want(format!("net/ipv6/conf/{HOST_DEVICE}/forwarding"), "1");
        }
        // A forwarding node loses the default route that routers advertise, unless this is 2.
        for link in uplinks {
            let path = format!("net/ipv6/conf/{}/accept_ra", link.name);
            let has = observed.state.sysctls.get(&path);
            if has.is_some_and(|value| matches!(value.trim(), "1" | "2")) {
                want(path, "2");
            }
        }
    }
    wanted
}
