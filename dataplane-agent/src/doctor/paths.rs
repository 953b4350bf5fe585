//! What size of packets the ways to other nodes take.

use super::finding::Finding;
use super::node::Node;
use crate::advice::Advice;
use crate::model::Encapsulation;
use crate::status::Status;

/// Every link that carries IPv6 takes this (RFC 8200, section 5).
const MTU_IPV6_MIN: u32 = 1_280;
/// Outer headers of VXLAN over IPv4: IP, UDP, VXLAN, Ethernet.
const OUTER_IPV4: u32 = 50;
/// IP and ICMP headers of a ping.
const PING_HEADERS: u32 = 28;
/// More than these are not named one by one.
const NAMED_MAX: usize = 5;

pub(super) fn examine(node: &Node) -> Vec<Finding> {
    let mtus = node.uplinks.iter().filter_map(|name| node.devices.get(name));
    let mtus: Vec<(&str, u32)> =
        mtus.map(|device| (device.link.name.as_str(), device.link.mtu)).collect();
    match node.status() {
        Some(status) => [vec![of_pods(status, &mtus)], of_peers(status)].concat(),
        None => expected(node.around.network.encapsulation, node.around.network.mtu, &mtus),
    }
}

fn of_pods(status: &Status, uplinks: &[(&str, u32)]) -> Finding {
    let (check, mtu) = ("MTU of pods", status.node.pod_mtu);
    let devices: Vec<String> =
        uplinks.iter().map(|(name, mtu)| format!("{name} has {mtu}")).collect();
    let found = format!("{mtu} to other nodes; {}", devices.join(", "));
    if mtu < MTU_IPV6_MIN {
        let found = format!("{found}: IPv6 needs {MTU_IPV6_MIN}");
        return Finding::warning(check, Advice::new(found, larger(uplinks)));
    }
    Finding::ok(check, found)
}

fn larger(uplinks: &[(&str, u32)]) -> String {
    let commands: Vec<String> =
        uplinks.iter().map(|(name, _)| format!("`ip link set {name} mtu 1500`")).collect();
    format!("{}, where the network carries it, or a larger --mtu", commands.join(", "))
}

/// One line for all that is well, one for what is not.
fn of_peers(status: &Status) -> Vec<Finding> {
    let check = "ways to nodes";
    let ways: Vec<_> =
        status.peers.iter().flat_map(|peer| peer.ways.iter().map(move |way| (peer, way))).collect();
    let mut cut: Vec<&str> = ways
        .iter()
        .filter(|(_, way)| way.node.is_none())
        .map(|(peer, _)| peer.name.as_str())
        .collect();
    cut.extend(
        status.peers.iter().filter(|peer| peer.ways.is_empty()).map(|peer| peer.name.as_str()),
    );
    cut.dedup();
    let mut findings = Vec::new();
    if !cut.is_empty() {
        let named = cut.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let found = format!("nothing leads to all pods of {} nodes, such as {named}", cut.len());
        let remedy = "`podwire-agent status` shows why among its problems";
        findings.push(Finding::warning(check, Advice::new(found, remedy)));
    }
    let mtus = ways.iter().filter(|(_, way)| way.node.is_some());
    let Some((narrowest, way)) = mtus.clone().min_by_key(|(_, way)| way.mtu) else {
        findings.push(Finding::note(check, "no other node is known"));
        return findings;
    };
    let largest = mtus.map(|(_, way)| way.mtu).max().unwrap_or(way.mtu);
    let sizes = if largest == way.mtu {
        format!("packets of {largest}")
    } else {
        format!("packets of {} ({}) to {largest}", way.mtu, narrowest.name)
    };
    let address = narrowest.addresses.first().map(ToString::to_string).unwrap_or_default();
    let outer = if way.way == "vxlan" { OUTER_IPV4 } else { 0 };
    let payload = way.mtu.saturating_add(outer).saturating_sub(PING_HEADERS);
    findings.push(Finding::ok(
        check,
        format!(
            "{} nodes, {sizes} by the devices and routes of this one; what is between them shows `ping -M do -s \
             {payload} {address}`",
            status.peers.len()
        ),
    ));
    findings
}

fn expected(mode: Encapsulation, limit: Option<u32>, uplinks: &[(&str, u32)]) -> Vec<Finding> {
    let check = "MTU of pods";
    let Some((name, mtu)) = uplinks.iter().min_by_key(|(_, mtu)| *mtu) else {
        return vec![Finding::unseen(check, "no uplink is known")];
    };
    let mtu = limit.map_or(*mtu, |limit| limit.min(*mtu));
    let inner = match mode {
        Encapsulation::Direct => mtu,
        Encapsulation::Vxlan | Encapsulation::Auto => mtu.saturating_sub(OUTER_IPV4),
    };
    let found = match mode {
        Encapsulation::Direct => format!("{inner}, as {name} has"),
        Encapsulation::Vxlan => format!("{inner} inside VXLAN, as {name} has {mtu}"),
        Encapsulation::Auto => {
            format!("{mtu} where packets go direct, {inner} inside VXLAN, by {name}")
        }
    };
    let ways = Finding::note(
        "ways to nodes",
        "the agent judges them once it runs; what routers between the nodes carry it cannot see: --mtu says it",
    );
    if inner < MTU_IPV6_MIN {
        let found = format!("{found}: IPv6 needs {MTU_IPV6_MIN}");
        return vec![Finding::warning(check, Advice::new(found, larger(uplinks))), ways];
    }
    vec![Finding::ok(check, found), ways]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Severity;
    use super::*;

    fn status(peers: &Value) -> Status {
        let document = json!({
            "version": "0.1.0", "pid": 7, "abiVersion": 1, "settled": true,
            "node": {
                "name": "a", "addresses": [], "podCidrs": [], "clusterCidrs": [],
                "encapsulation": "vxlan", "uplinks": ["eth0"], "podMtu": 1450
            },
            "pools": [], "pods": [], "peers": peers, "programs": [], "counters": [], "drift": {},
            "problems": []
        });
        serde_json::from_value(document).unwrap()
    }

    fn peer(name: &str, node: Option<&str>, mtu: u32) -> Value {
        let way = json!({ "cidr": "10.244.2.0/24", "way": "vxlan", "node": node, "mtu": mtu });
        json!({ "name": name, "addresses": ["192.168.1.12"], "ways": [way] })
    }

    #[test]
    fn the_narrowest_way_and_the_nodes_that_nothing_leads_to_are_named() {
        let one = Some("192.168.1.12");
        let peers = json!([peer("b", one, 1450), peer("c", one, 1400), peer("d", None, 0)]);
        let findings = of_peers(&status(&peers));
        assert_eq!(findings[0].state, Severity::Warning);
        assert!(findings[0].found.contains("1 nodes, such as d"), "{}", findings[0].found);
        assert!(findings[1].found.contains("packets of 1400 (c) to 1450"), "{}", findings[1].found);
        // 1400 + 50 of VXLAN - 28 of the ping.
        assert!(
            findings[1].found.contains("ping -M do -s 1422 192.168.1.12"),
            "{}",
            findings[1].found
        );
        assert_eq!(of_peers(&status(&json!([])))[0].state, Severity::Note);
    }

    #[test]
    fn without_an_agent_the_uplink_says_what_pods_will_have() {
        let found =
            |mode, limit| expected(mode, limit, &[("eth0", 1500), ("eth1", 9000)])[0].clone();
        assert!(found(Encapsulation::Vxlan, None).found.starts_with("1450 inside VXLAN, as eth0"));
        assert!(found(Encapsulation::Direct, Some(1400)).found.starts_with("1400"));
        assert_eq!(found(Encapsulation::Vxlan, Some(1300)).state, Severity::Warning);
        assert_eq!(expected(Encapsulation::Auto, None, &[])[0].state, Severity::Note);
    }
}
