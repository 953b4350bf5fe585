//! The reference plugin `bridge`, with routes between the nodes.

use anyhow::Result;
use harness::cluster::CLUSTER_CIDRS;
use harness::command;
use serde_json::{Value, json};

use super::Member;
use crate::node::Node;

/// Returns the plugin's configuration.
pub(super) fn install(node: &Node, own: &Member, members: &[Member]) -> Result<Value> {
    node.namespace.sysctls(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        // Answers of a service's pod to a pod beside it must pass kube-proxy's rules on their way back.
        ("bridge/bridge-nf-call-iptables", "1"),
        ("bridge/bridge-nf-call-ip6tables", "1"),
    ])?;
    for other in members.iter().filter(|member| member.name != own.name) {
        for (cidr, address) in other.pod_cidrs.iter().zip(&other.addresses) {
            node.namespace.ip(&format!("route add {cidr} via {address}"))?;
        }
    }
    let [ipv4, ipv6] = CLUSTER_CIDRS;
    let mut nft = node.namespace.command("nft");
    nft.args(["-f", "-"]);
    let output = command::feed(
        &mut nft,
        &format!(
            "table inet world {{ chain out {{ type nat hook postrouting priority 100;\n\
             ip saddr {ipv4} ip daddr != {ipv4} oifname eth0 masquerade\n\
             ip6 saddr {ipv6} ip6 daddr != {ipv6} oifname eth0 masquerade\n}}\n}}\n"
        ),
    )?;
    command::checked(&nft, &output)?;
    let ranges: Vec<Value> = own.pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
    Ok(json!({
        "type": "bridge",
        "bridge": "pods",
        "isGateway": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/host-local",
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    }))
}

pub(super) fn kept(node: &Node) -> Vec<String> {
    let leases = super::files(node, "run/host-local/pods");
    let is_lease = |name: &&String| name.contains(['.', ':']) && !name.starts_with("last");
    leases.iter().filter(is_lease).map(|name| format!("lease {name}")).collect()
}
