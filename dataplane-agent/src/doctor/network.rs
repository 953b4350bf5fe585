//! Settings of the host's network.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::finding::Finding;
use super::node::{Agent, Node};
use crate::advice::Advice;
use crate::compile::strict_rp_filter;
use crate::kernel::live::forward_policies;
use crate::kernel::live::probe::devices::{SeenRoute, routes};
use crate::kernel::{HOST_DEVICE, TUNNEL_DEVICE};
use crate::model::is_pod_interface;

/// More than these are not named one by one.
const NAMED_MAX: usize = 5;

pub(super) async fn examine(node: &Node) -> Vec<Finding> {
    if let Some(why) = &node.devices_unseen {
        return vec![Finding::unseen("uplinks", why)];
    }
    let mut findings = vec![uplinks(node)];
    let runs = node.status().is_some();
    for (check, path) in [
        ("IPv4 forwarding", "net/ipv4/ip_forward"),
        ("IPv6 forwarding", "net/ipv6/conf/all/forwarding"),
    ] {
        findings.push(forwarding(check, path, node.sysctl(path).as_deref(), runs));
    }
    for uplink in &node.uplinks {
        let value = |of: &str| node.sysctl(&format!("net/ipv4/conf/{of}/rp_filter"));
        findings.push(rp_filter(uplink, value("all").as_deref(), value(uplink).as_deref()));
        let accept = node.sysctl(&format!("net/ipv6/conf/{uplink}/accept_ra"));
        findings.extend(accept_ra(uplink, accept.as_deref(), runs));
    }
    findings.extend(forward(node));
    findings.extend(rivals(node).await);
    findings
}

fn uplinks(node: &Node) -> Finding {
    let check = "uplinks";
    if node.uplinks.is_empty() {
        return match &node.agent {
            Agent::Runs(_) => {
                let remedy = "name the devices that lead to other nodes with --uplink";
                Finding::warning(check, Advice::new("the agent has none", remedy))
            }
            Agent::Away { .. } | Agent::Silent(_) => Finding::unseen(
                check,
                "no device has a default route; an agent takes the device that has the node's address",
            ),
        };
    }
    for name in &node.uplinks {
        match node.devices.get(name) {
            Some(device) if device.link.up => {}
            Some(_) => {
                let found = format!("{name} is down");
                return Finding::warning(
                    check,
                    Advice::new(found, format!("`ip link set {name} up`")),
                );
            }
            None => {
                let found = format!("there is no device {name}");
                return Finding::warning(check, Advice::new(found, "correct --uplink, or make it"));
            }
        }
    }
    let guess = if node.status().is_some() || !node.around.network.uplinks.is_empty() {
        ""
    } else {
        " (by the default routes; an agent takes the device that has the node's address)"
    };
    Finding::ok(check, format!("{}{guess}", node.uplinks.join(", ")))
}

fn forwarding(check: &str, path: &str, value: Option<&str>, agent_runs: bool) -> Finding {
    let name = path.replace('/', ".");
    match value {
        None => {
            let found =
                format!("{name} is not there: the kernel runs without this family, and so do pods");
            Finding::note(check, found)
        }
        Some("0") if agent_runs => Finding::warning(
            check,
            Advice::new(
                format!("{name} is 0, and the agent has not set it: nothing is forwarded"),
                format!(
                    "`sysctl {name}=1`; find out what sets it back, such as a file in /etc/sysctl.d"
                ),
            ),
        ),
        Some("0") => Finding::note(check, format!("{name} is 0: the agent sets it")),
        Some(value) => Finding::ok(check, format!("{name} is {value}")),
    }
}

/// The kernel uses the larger of the two values (Documentation/networking/ip-sysctl.rst).
fn rp_filter(uplink: &str, of_all: Option<&str>, of_uplink: Option<&str>) -> Finding {
    let check = format!("rp_filter of {uplink}");
    let number = |value: Option<&str>| value.and_then(|value| value.parse::<u32>().ok());
    match number(of_all).max(number(of_uplink)) {
        None => Finding::unseen(check, "the value cannot be read"),
        Some(1) => Finding::warning(check, strict_rp_filter(uplink)),
        Some(value) => Finding::ok(check, format!("{value}, not strict")),
    }
}

/// A forwarding node loses the default route that routers advertise, unless this is 2.
fn accept_ra(uplink: &str, value: Option<&str>, agent_runs: bool) -> Option<Finding> {
    let check = format!("accept_ra of {uplink}");
    match value? {
        "1" if agent_runs => Some(Finding::warning(
            check,
            Advice::new(
                "1: a node that forwards loses the IPv6 default route that routers advertise",
                format!(
                    "`sysctl net.ipv6.conf.{uplink}.accept_ra=2`; the agent sets it where pods have IPv6"
                ),
            ),
        )),
        "1" => Some(Finding::note(check, "1: the agent sets 2, as the node will forward")),
        _ => None,
    }
}

fn forward(node: &Node) -> Vec<Finding> {
    let check = "forward policy";
    if let Err(why) = &node.firewall {
        return vec![Finding::unseen(check, why)];
    }
    let policies = forward_policies();
    if policies.is_empty() {
        return vec![Finding::ok(check, "no nftables chain drops what is forwarded by its policy")];
    }
    policies.into_iter().map(|policy| Finding::warning(check, policy)).collect()
}

/// Routes into the cluster that are not ours.
async fn rivals(node: &Node) -> Option<Finding> {
    let cidrs = match node.status() {
        Some(status) => &status.node.cluster_cidrs,
        None => &node.around.network.cluster_cidrs,
    };
    if cidrs.is_empty() {
        return None;
    }
    let own = node.devices.values().filter(|device| {
        [HOST_DEVICE, TUNNEL_DEVICE].contains(&device.link.name.as_str())
            || is_pod_interface(&device.link.name)
    });
    let own: BTreeSet<u32> = own.map(|device| device.link.ifindex).collect();
    let found = routes(|route| leads_past(route, cidrs, &own)).await;
    Some(match found {
        Ok(routes) => past(&routes, |ifindex| node.name_of(ifindex).map(str::to_owned)),
        Err(error) => Finding::unseen("routes to pods", error),
    })
}

fn leads_past(route: &SeenRoute, cidrs: &[IpNet], own: &BTreeSet<u32>) -> bool {
    let is_inside = cidrs.iter().any(|cidr| cidr.contains(&route.destination));
    is_inside && !route.ifindexes.iter().any(|ifindex| own.contains(ifindex))
}

fn past(routes: &[SeenRoute], name_of: impl Fn(u32) -> Option<String>) -> Finding {
    let check = "routes to pods";
    if routes.is_empty() {
        return Finding::ok(check, format!("all lead to {HOST_DEVICE}"));
    }
    let text = |route: &SeenRoute| {
        let device = route.ifindexes.first().and_then(|ifindex| name_of(*ifindex));
        match device {
            Some(device) => format!("{} dev {device}", route.destination),
            None if route.is_blackhole => format!("blackhole {}", route.destination),
            None => route.destination.to_string(),
        }
    };
    let named = routes.iter().take(NAMED_MAX);
    let shown: Vec<String> =
        named.clone().map(|route| format!("{} (proto {})", text(route), route.protocol)).collect();
    let commands: Vec<String> = named
        .map(|route| {
            let family = if matches!(route.destination, IpNet::V6(_)) { " -6" } else { "" };
            format!("`ip{family} route delete {}`", text(route))
        })
        .collect();
    let more = routes.len().saturating_sub(NAMED_MAX);
    let rest = if more > 0 { format!(" and {more} others") } else { String::new() };
    Finding::warning(
        check,
        Advice::new(
            format!(
                "{}{rest} lead past {HOST_DEVICE}: this node does not reach these pods by Podwire",
                shown.join(", ")
            ),
            format!("{}; first end who makes them", commands.join(", ")),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn forwarding_is_the_agents_business_until_it_runs() {
        let judge = |value, runs| forwarding("IPv4 forwarding", "net/ipv4/ip_forward", value, runs);
        assert_eq!(judge(Some("0"), false).state, Severity::Note);
        let finding = judge(Some("0"), true);
        assert_eq!(finding.state, Severity::Warning);
        assert!(finding.remedy.unwrap().contains("`sysctl net.ipv4.ip_forward=1`"));
        assert_eq!(judge(Some("1"), true).state, Severity::Ok);
        assert_eq!(judge(None, true).state, Severity::Note);
    }

    #[test]
    fn the_larger_rp_filter_counts() {
        let state = |all, uplink| rp_filter("eth0", all, uplink).state;
        assert_eq!(state(Some("1"), Some("0")), Severity::Warning);
        assert_eq!(state(Some("0"), Some("1")), Severity::Warning);
        assert_eq!(state(Some("1"), Some("2")), Severity::Ok);
        assert_eq!(state(Some("0"), Some("0")), Severity::Ok);
        assert_eq!(state(None, None), Severity::Note);
        let remedy = rp_filter("eth0", Some("1"), Some("0")).remedy.unwrap();
        assert!(remedy.contains("`sysctl net.ipv4.conf.eth0.rp_filter=2`"), "{remedy}");
    }

    #[test]
    fn advertised_routes_need_a_2() {
        assert_eq!(accept_ra("eth0", Some("1"), true).unwrap().state, Severity::Warning);
        assert_eq!(accept_ra("eth0", Some("1"), false).unwrap().state, Severity::Note);
        assert_eq!(accept_ra("eth0", Some("2"), true), None);
        assert_eq!(accept_ra("eth0", None, true), None);
    }

    #[test]
    fn routes_of_others_into_the_cluster_are_named_with_their_removal() {
        let route = |destination: &str, ifindexes: &[u32]| SeenRoute {
            destination: destination.parse().unwrap(),
            ifindexes: ifindexes.to_vec(),
            protocol: "bird".to_owned(),
            is_blackhole: ifindexes.is_empty(),
        };
        let cidrs = ["10.244.0.0/16".parse().unwrap()];
        let own = BTreeSet::from([7]);
        assert!(leads_past(&route("10.244.3.0/24", &[4]), &cidrs, &own));
        assert!(leads_past(&route("10.244.3.0/26", &[]), &cidrs, &own));
        assert!(!leads_past(&route("10.244.0.0/16", &[7]), &cidrs, &own));
        assert!(!leads_past(&route("10.0.0.0/8", &[4]), &cidrs, &own));
        let finding = past(&[route("10.244.3.0/24", &[4]), route("10.244.4.0/26", &[])], |_| {
            Some("tunl0".to_owned())
        });
        assert!(finding.found.contains("10.244.3.0/24 dev tunl0 (proto bird)"), "{finding:?}");
        let remedy = finding.remedy.unwrap();
        assert!(remedy.contains("`ip route delete blackhole 10.244.4.0/26`"), "{remedy}");
        assert_eq!(past(&[], |_| None).state, Severity::Ok);
    }
}
