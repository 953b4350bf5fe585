//! A cluster as its users have it: an API, nodes, and perhaps a machine outside.

use anyhow::{Context as _, Result};
use harness::namespace::Namespace;
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::network::{Member, Network};

/// What a cluster is to those who look at its pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) kubectl: &'a Kubectl,
    /// Nodes for pods of the checks, at least two.
    pub(crate) members: &'a [Member],
    pub(crate) network: Network,
    /// Where the world is; where nothing is known of one, nobody is asked there.
    pub(crate) world: Option<&'a Namespace>,
}

impl View<'_> {
    /// How many families of addresses pods have.
    pub(crate) fn families(&self) -> usize {
        self.members.first().map_or(0, |member| member.pod_cidrs.len())
    }
}

/// The nodes that have pod networks, with an address of the family of each, take pods, and are as wanted.
pub(crate) fn read_members(
    kubectl: &Kubectl,
    is_wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Member>> {
    let nodes = kubectl.get("nodes")?;
    let items = nodes["items"].as_array().context("items")?.iter();
    let items = items.filter(|node| node["spec"]["unschedulable"] != true && is_wanted(node));
    Ok(items.filter_map(member).collect())
}

fn member(node: &Value) -> Option<Member> {
    let name = node["metadata"]["name"].as_str()?.to_owned();
    let texts = |array: &Value| -> Vec<String> {
        let items = array.as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let pod_cidrs = texts(&node["spec"]["podCIDRs"]);
    let addresses = node["status"]["addresses"].as_array()?.iter();
    let internal: Vec<&str> = addresses
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str())
        .collect();
    let of_family = |cidr: &String| {
        let is_ipv6 = cidr.contains(':');
        internal.iter().find(|it| it.contains(':') == is_ipv6).map(|&it| it.to_owned())
    };
    let addresses = pod_cidrs.iter().map(of_family).collect::<Option<Vec<String>>>()?;
    (!addresses.is_empty()).then_some(Member { name, addresses, pod_cidrs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_has_an_address_for_each_pod_network() {
        let node = |cidrs: Value, addresses: &[&str]| {
            let addresses: Vec<Value> = addresses
                .iter()
                .map(|address| json!({"type": "InternalIP", "address": address}))
                .collect();
            let node = json!({
                "metadata": {"name": "a"},
                "spec": {"podCIDRs": cidrs},
                "status": {"addresses": addresses},
            });
            member(&node).map(|member| member.addresses)
        };
        let both = json!(["10.244.1.0/24", "fd00::/64"]);
        let addresses = node(both.clone(), &["fd01::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(addresses.unwrap(), ["192.0.2.1", "fd01::1"]);
        assert_eq!(node(json!(["10.244.1.0/24"]), &["192.0.2.1"]).unwrap(), ["192.0.2.1"]);
        assert_eq!(node(both, &["192.0.2.1"]), None, "not yet");
        assert_eq!(node(json!([]), &["192.0.2.1"]), None, "not yet");
    }
}
