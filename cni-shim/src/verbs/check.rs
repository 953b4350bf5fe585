//! CHECK: compares the result of ADD with the kernel. Needs no agent, as forwarding needs none.

use std::net::IpAddr;
use std::path::Path;

use dataplane_core::abi::config::GATEWAY_MAC;
use dataplane_core::abi::{Mac, PodEntry};
use ipnet::IpNet;

use crate::agent;
use crate::error::{CHECK_FAILED, Context as _, DECODE, INVALID_CONFIG, failure};
use crate::ipam;
use crate::kernel::{self, Container, LinkFacts, Netlink, PodFacts, RouteFacts};
use crate::names::{Hook, Pins};
use crate::protocol::Failure;
use crate::request::{Config, Environment};
use crate::result::{AddResult, Interface, Route, gateway, mac_text};

/// Checks that an attachment is as ADD left it; names the first difference.
pub(crate) fn check(environment: &Environment, config: &Config) -> Result<(), Failure> {
    let (attachment, netns) = environment.attachment_in_netns()?;
    let netlink = Netlink::open()?;
    let container = Container::open(Path::new(netns), &netlink)?;
    let Some(previous) = config.prev_result.clone() else {
        return Err(failure(INVALID_CONFIG, "\"prevResult\" is missing", "CHECK needs it"));
    };
    let previous: AddResult =
        serde_json::from_value(previous).context(DECODE, || "read \"prevResult\"".into())?;
    ipam::check(environment, config)?;
    let socket = config.socket();
    let _lock = crate::lock::take(&attachment, &socket)?;
    let pins = Pins(agent::plugin_file(&socket)?.bpffs);
    let addresses = pod_addresses(&previous, &attachment.ifname)?;

    let ifname = attachment.ifname.clone();
    let pod = container
        .inside(move |netlink| netlink.pod_facts(&ifname))?
        .ok_or_else(|| differs(format!("{} is gone from the container", attachment.ifname)))?;
    let host_ifname = attachment.host_ifname();
    let host = netlink
        .link(&host_ifname)?
        .ok_or_else(|| differs(format!("the host side {host_ifname} is gone")))?;
    expect(&format!("MAC of {host_ifname}"), &mac_text(GATEWAY_MAC.octets), &mac_text(host.mac))?;
    let sides = [(&host_ifname, &host, false), (&attachment.ifname, &pod.link, true)];
    for (ifname, link, in_sandbox) in sides {
        let is_it = |i: &&Interface| i.name == *ifname && i.sandbox.is_empty() != in_sandbox;
        side(ifname, link, previous.interfaces.iter().find(is_it))?;
    }
    let is_told = previous.interfaces.iter().any(|interface| interface.mtu.is_some());
    if !is_told {
        expect(&format!("MTU of {host_ifname}"), &pod.link.mtu, &host.mtu)?;
    }
    pod_side(&pod, &addresses, &previous, &attachment.ifname)?;
    for (hook, what) in [(Hook::Ingress, "ingress"), (Hook::Egress, "egress")] {
        let (wanted, attached) = kernel::programs(&pins, &host_ifname, hook)?;
        if !attached.contains(&wanted) {
            return Err(differs(format!(
                "program {wanted} is not attached to {host_ifname} at {what}: {attached:?} are"
            )));
        }
    }
    addresses.into_iter().try_for_each(|ip| map_entry(&pins, ip, &host, &pod))
}

/// What both sides of the veth have, as far as the result tells.
fn side(ifname: &str, link: &LinkFacts, previous: Option<&Interface>) -> Result<(), Failure> {
    expect(&format!("{ifname} is up"), &true, &link.up)?;
    let Some(previous) = previous else { return Ok(()) };
    expect(&format!("MAC of {ifname}"), &previous.mac.to_lowercase(), &mac_text(link.mac))?;
    match previous.mtu {
        Some(mtu) => expect(&format!("MTU of {ifname}"), &mtu, &link.mtu),
        None => Ok(()),
    }
}

fn pod_side(
    pod: &PodFacts,
    addresses: &[IpAddr],
    previous: &AddResult,
    ifname: &str,
) -> Result<(), Failure> {
    for ip in addresses {
        if !pod.addresses.contains(&IpNet::from(*ip)) {
            return Err(differs(format!("{ip} is not on {ifname}")));
        }
        let gateway = gateway(*ip);
        let to_gateway = |r: &RouteFacts| r.dst == IpNet::from(gateway) && r.gateway.is_none();
        if gateway.is_ipv4() && !pod.routes.iter().any(to_gateway) {
            return Err(differs(format!("the route to {gateway} is gone")));
        }
        match pod.neighbours.get(&gateway) {
            Some(mac) => expect(
                &format!("neighbour {gateway}"),
                &mac_text(GATEWAY_MAC.octets),
                &mac_text(*mac),
            )?,
            None => {
                return Err(differs(format!("the permanent neighbour entry of {gateway} is gone")));
            }
        }
    }
    own_table(pod, addresses, ifname)?;
    // Those of other plugins in the chain are theirs to check.
    let ours = |route: &&Route| route.gw == Some(gateway(route.dst.addr()));
    previous.routes.iter().filter(ours).try_for_each(|wanted| route(pod, wanted))
}

/// Where another interface had the routes, this one's are in a table of its own, to which a rule leads.
fn own_table(pod: &PodFacts, addresses: &[IpAddr], ifname: &str) -> Result<(), Failure> {
    let table = pod.own_table;
    for ip in addresses {
        let is_of_table =
            |r: &RouteFacts| r.table == table && r.dst.addr().is_ipv4() == ip.is_ipv4();
        let has_routes = pod.routes.iter().any(is_of_table);
        match (has_routes, pod.led_to_own_table.contains(ip)) {
            (true, false) => {
                return Err(differs(format!(
                    "the rule that leads {ip} to the table {table} is gone"
                )));
            }
            (false, true) => {
                return Err(differs(format!(
                    "the routes of {ifname} in the table {table} are gone"
                )));
            }
            (true, true) | (false, false) => {}
        }
    }
    Ok(())
}

/// A route that ADD set. Results before 1.1.0 do not tell its MTU and what else there is.
fn route(pod: &PodFacts, wanted: &Route) -> Result<(), Failure> {
    let dst = wanted.dst;
    let what = match dst.prefix_len() {
        0 => "default route".to_owned(),
        _ => format!("route to {dst}"),
    };
    // The plugin "sbr" may have moved it, but not to the table of ours, which has copies.
    let is_there = |route: &&RouteFacts| match wanted.table {
        Some(table) => route.table == table,
        None => route.table != pod.own_table,
    };
    let is_as = |wanted: Option<u32>, found| wanted.is_none_or(|w| w == 0) || wanted == found;
    let is_it = |route: &&RouteFacts| {
        (route.dst == dst && route.gateway == wanted.gw && is_there(route))
            && is_as(wanted.priority, route.priority)
            && is_as(wanted.advmss, route.advmss)
    };
    let found: Vec<&RouteFacts> = pod.routes.iter().filter(is_it).collect();
    let gateway = gateway(dst.addr());
    match (found.first(), wanted.mtu) {
        (None, _) => Err(differs(format!("the {what} by {gateway} is gone"))),
        (Some(first), Some(mtu)) if found.iter().all(|route| route.mtu != Some(mtu)) => {
            let has =
                first.mtu.map_or_else(|| "that of the interface".to_owned(), |mtu| mtu.to_string());
            Err(differs(format!("MTU of the {what} by {gateway}: {has}, not {mtu}")))
        }
        (Some(_), _) => Ok(()),
    }
}

fn map_entry(pins: &Pins, ip: IpAddr, host: &LinkFacts, pod: &PodFacts) -> Result<(), Failure> {
    let entry = kernel::pod_entry(pins, ip)?
        .ok_or_else(|| differs(format!("{ip} is not in the map pw_pods")))?;
    let what = |part: &str| format!("{part} of {ip} in pw_pods");
    let mac = |mac: Mac| mac_text(mac.octets);
    expect(&what("interface"), &host.ifindex, &entry.ifindex)?;
    expect(&what("kind"), &PodEntry::POD, &entry.kind)?;
    expect(&what("MAC"), &mac_text(pod.link.mac), &mac(entry.mac))?;
    expect(&what("gateway's MAC"), &mac_text(host.mac), &mac(entry.gateway_mac))
}

/// The addresses that ADD gave to our interface.
fn pod_addresses(previous: &AddResult, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let ours = |index: Option<usize>| match index.and_then(|index| previous.interfaces.get(index)) {
        Some(interface) => interface.name == ifname,
        None => false,
    };
    let addresses: Vec<IpAddr> =
        previous.ips.iter().filter(|ip| ours(ip.interface)).map(|ip| ip.address.addr()).collect();
    if addresses.is_empty() {
        return Err(failure(
            INVALID_CONFIG,
            format!("\"prevResult\" has no address of {ifname}"),
            "it must be the result of ADD",
        ));
    }
    Ok(addresses)
}

fn expect<T: PartialEq + std::fmt::Display>(
    what: &str,
    wanted: &T,
    found: &T,
) -> Result<(), Failure> {
    if wanted == found {
        return Ok(());
    }
    Err(differs(format!("{what}: {found}, not {wanted}")))
}

fn differs(details: String) -> Failure {
    failure(CHECK_FAILED, "the attachment is not as ADD left it", details)
}
