//! The result of ADD, compared with what the kernel has.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{Check, INTERFACE, must, reference};
use crate::bench::{Bench, Container, IFNAME};
use crate::kernel::{self, Route, network};
use crate::stop::{Outcome, ensure, fail, not_applicable};

const RESULT: &str = "5 ADD Success";

pub(super) const CHECKS: &[Check] = &[
    must("result/one-document", "5 Result Types", "ADD prints one JSON object", |bench| {
        add(bench).map(drop)
    })
    .each_version(),
    must("result/cni-version", RESULT, "cniVersion is that of the request", cni_version)
        .each_version(),
    must("result/interface", RESULT, "interfaces has CNI_IFNAME", interface)
        .kinds(INTERFACE)
        .each_version(),
    must("result/sandbox", RESULT, "the sandbox of CNI_IFNAME is CNI_NETNS", sandbox)
        .kinds(INTERFACE)
        .each_version(),
    must("result/mac", RESULT, "the mac of CNI_IFNAME is what the kernel has", mac)
        .kinds(INTERFACE),
    must("result/mtu", RESULT, "an mtu is what the kernel has", mtu)
        .kinds(INTERFACE)
        .since("1.1.0"),
    must(
        "result/host-interfaces-exist",
        RESULT,
        "interfaces without a sandbox are on the host, with their mac",
        host_interfaces_exist,
    )
    .kinds(INTERFACE),
    must(
        "result/host-interfaces-listed",
        RESULT,
        "interfaces that ADD makes on the host are listed",
        host_interfaces_listed,
    )
    .kinds(INTERFACE),
    must("result/ips", RESULT, "ips are addresses in CIDR notation", ips).each_version(),
    must("result/ips-exist", RESULT, "ips are on the interface, with their prefix", ips_exist)
        .kinds(INTERFACE),
    must("result/ips-listed", RESULT, "all addresses of the interface are listed", ips_listed)
        .kinds(INTERFACE),
    must("result/ip-interface", RESULT, "ips have the index of their interface", ip_interface)
        .kinds(INTERFACE)
        .each_version(),
    must("result/gateway", RESULT, "a gateway is an address of the family of its ip", gateway),
    must("result/ip-version", "0.4.0 IPs", "ips have the version of their address", ip_version)
        .until("0.4.0")
        .each_version(),
    reference("result/no-ip-version", "Released versions", "ips have no version", no_ip_version)
        .since("1.0.0")
        .each_version(),
    must("result/routes", RESULT, "routes have a dst, and a gw of its family", routes)
        .each_version(),
    must("result/routes-exist", RESULT, "routes are in the container", routes_exist)
        .kinds(INTERFACE),
    must("result/default-route-listed", RESULT, "a default route is listed", default_listed)
        .kinds(INTERFACE),
    must("result/dns", RESULT, "dns has lists of texts and a domain", dns).each_version(),
    reference(
        "result/no-newer-keys",
        "1 Version considerations",
        "a result has no keys of versions after that of the request",
        no_newer_keys,
    )
    .until("1.0.0")
    .each_version(),
];

struct Added {
    container: std::sync::Arc<Container>,
    result: Value,
}

fn add(bench: &Bench<'_>) -> Outcome<Added> {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    Ok(Added { container, result })
}

fn list<'a>(result: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    result[key].as_array().into_iter().flatten()
}

/// The addresses of a result.
pub(super) fn addresses(result: &Value) -> Outcome<Vec<IpNet>> {
    let read = |ip: &Value| match ip["address"].as_str().map(str::parse) {
        Some(Ok(address)) => Ok(address),
        _ => fail(format!("no address in CIDR notation: {ip}")),
    };
    list(result, "ips").map(read).collect()
}

fn own(added: &Added) -> Outcome<&Value> {
    match list(&added.result, "interfaces").find(|interface| interface["name"] == IFNAME) {
        Some(interface) => Ok(interface),
        None => fail(format!("interfaces does not have {IFNAME}: {}", added.result)),
    }
}

fn in_kernel(added: &Added) -> Outcome<kernel::Link> {
    match kernel::link(&added.container.namespace, IFNAME)? {
        Some(link) => Ok(link),
        None => fail(format!("{IFNAME} is not in the container")),
    }
}

fn cni_version(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let version = &added.result["cniVersion"];
    ensure(*version == bench.version, || format!("cniVersion is {version}, not {}", bench.version))
}

fn interface(bench: &Bench<'_>) -> Outcome {
    own(&add(bench)?).map(drop)
}

fn sandbox(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let path = added.container.namespace.path().display().to_string();
    let sandbox = &own(&added)?["sandbox"];
    ensure(*sandbox == *path, || format!("sandbox is {sandbox}, CNI_NETNS {path}"))
}

fn mac(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    same_mac(own(&added)?, &in_kernel(&added)?)
}

fn same_mac(interface: &Value, link: &kernel::Link) -> Outcome {
    let mac = interface["mac"].as_str().unwrap_or_default();
    ensure(mac.eq_ignore_ascii_case(&link.address), || {
        format!("the mac of {} is {mac:?}, the kernel has {}", link.name, link.address)
    })
}

fn mtu(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let mtu = &own(&added)?["mtu"];
    if mtu.is_null() {
        return not_applicable("the result has none");
    }
    let link = in_kernel(&added)?;
    ensure(*mtu == link.mtu, || format!("mtu is {mtu}, the kernel has {}", link.mtu))
}

fn is_on_host(interface: &Value) -> bool {
    interface["sandbox"].as_str().unwrap_or_default().is_empty()
}

fn host_interfaces_exist(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    for interface in list(&added.result, "interfaces").filter(|i| is_on_host(i)) {
        let name = interface["name"].as_str().unwrap_or_default();
        let Some(link) = kernel::link(&bench.setup.host, name)? else {
            return fail(format!("{interface} is not on the host"));
        };
        if !interface["mac"].is_null() {
            same_mac(interface, &link)?;
        }
    }
    Ok(())
}

fn host_interfaces_listed(bench: &Bench<'_>) -> Outcome {
    let before = kernel::names(&bench.setup.host)?;
    let added = add(bench)?;
    let after = kernel::names(&bench.setup.host)?;
    for name in after.difference(&before) {
        let is_listed = list(&added.result, "interfaces")
            .any(|interface| is_on_host(interface) && interface["name"] == **name);
        ensure(is_listed, || format!("{name} on the host is not in {}", added.result))?;
    }
    Ok(())
}

fn ips(bench: &Bench<'_>) -> Outcome {
    addresses(&add(bench)?.result).map(drop)
}

fn ips_exist(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let link = in_kernel(&added)?;
    for address in addresses(&added.result)? {
        ensure(link.global().contains(&address), || {
            format!("{address} is not among {:?} of {IFNAME}", link.global())
        })?;
    }
    Ok(())
}

fn ips_listed(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let listed: Vec<IpAddr> = addresses(&added.result)?.iter().map(IpNet::addr).collect();
    for address in in_kernel(&added)?.global() {
        ensure(listed.contains(&address.addr()), || {
            format!("{IFNAME} has {address}, ips has {listed:?}")
        })?;
    }
    Ok(())
}

fn ip_interface(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    for ip in list(&added.result, "ips") {
        let index = ip["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
        let interface = index.and_then(|index| added.result["interfaces"].get(index));
        let is_own = interface.is_some_and(|interface| interface["name"] == IFNAME);
        ensure(is_own, || format!("{ip} does not point at {IFNAME}: {}", added.result))?;
    }
    Ok(())
}

fn gateway(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    for ip in list(&added.result, "ips").filter(|ip| !ip["gateway"].is_null()) {
        let gateway: Option<IpAddr> = ip["gateway"].as_str().and_then(|text| text.parse().ok());
        let address = ip["address"].as_str().and_then(network);
        let fits =
            gateway.zip(address).is_some_and(|(gw, net)| gw.is_ipv4() == net.addr().is_ipv4());
        ensure(fits, || format!("no gateway for it: {ip}"))?;
    }
    Ok(())
}

fn ip_version(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    for ip in list(&added.result, "ips") {
        let address = ip["address"].as_str().and_then(network);
        let wanted = if address.is_some_and(|net| net.addr().is_ipv4()) { "4" } else { "6" };
        ensure(ip["version"] == wanted, || format!("version is not {wanted:?}: {ip}"))?;
    }
    Ok(())
}

fn no_ip_version(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let found = list(&added.result, "ips").find(|ip| !ip["version"].is_null());
    ensure(found.is_none(), || format!("a version: {}", found.unwrap_or_default()))
}

/// Routes of a result: destination and next hop.
fn listed_routes(result: &Value) -> Outcome<Vec<(IpNet, Option<IpAddr>)>> {
    let mut routes = Vec::new();
    for route in list(result, "routes") {
        let Some(dst) = route["dst"].as_str().and_then(|text| text.parse::<IpNet>().ok()) else {
            return fail(format!("no dst in CIDR notation: {route}"));
        };
        let gateway = match route["gw"].as_str() {
            None => None,
            Some(text) => match text.parse::<IpAddr>() {
                Ok(gw) if gw.is_ipv4() == dst.addr().is_ipv4() => Some(gw),
                _ => return fail(format!("gw is no address of the family of dst: {route}")),
            },
        };
        routes.push((dst.trunc(), gateway));
    }
    Ok(routes)
}

fn routes(bench: &Bench<'_>) -> Outcome {
    listed_routes(&add(bench)?.result).map(drop)
}

fn routes_exist(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let there = kernel::routes(&added.container.namespace)?;
    for (destination, gateway) in listed_routes(&added.result)? {
        let fits = |route: &&Route| {
            route.destination == destination && (gateway.is_none() || route.gateway == gateway)
        };
        ensure(there.iter().any(|route| fits(&route)), || {
            format!("the route to {destination} is not in the container: {there:?}")
        })?;
    }
    Ok(())
}

fn default_listed(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let listed = listed_routes(&added.result)?;
    let there = kernel::routes(&added.container.namespace)?;
    let made = |route: &&Route| route.destination.prefix_len() == 0 && route.protocol != "kernel";
    for route in there.iter().filter(made) {
        ensure(listed.iter().any(|(dst, _)| *dst == route.destination), || {
            format!("the container has the route {}, the result not", route.destination)
        })?;
    }
    Ok(())
}

fn dns(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let dns = &added.result["dns"];
    ensure(dns.is_object() || dns.is_null(), || format!("dns is no object: {dns}"))?;
    let is_text = |value: &Value| value.is_string() || value.is_null();
    ensure(is_text(&dns["domain"]), || format!("domain is no text: {dns}"))?;
    for key in ["nameservers", "search", "options"] {
        let texts = &dns[key];
        let are_texts = texts.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        ensure(are_texts || texts.is_null(), || format!("{key} is no list of texts: {dns}"))?;
    }
    for server in list(dns, "nameservers").filter_map(Value::as_str) {
        ensure(server.parse::<IpAddr>().is_ok(), || format!("nameserver {server:?}"))?;
    }
    Ok(())
}

fn no_newer_keys(bench: &Bench<'_>) -> Outcome {
    let added = add(bench)?;
    let newer: [(&str, &[&str]); 2] = [
        ("interfaces", &["mtu", "socketPath", "pciID"]),
        ("routes", &["mtu", "advmss", "priority", "table", "scope"]),
    ];
    for (name, keys) in newer {
        for entry in list(&added.result, name) {
            let found = keys.iter().find(|key| !entry[**key].is_null());
            ensure(found.is_none(), || format!("{} of 1.1.0: {entry}", found.unwrap_or(&"")))?;
        }
    }
    Ok(())
}
