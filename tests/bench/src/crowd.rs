//! Clusters that are larger than the machine: nodes of a node file, and addresses of pods.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::namespace::Namespace;
use tests::node::{CniCall, Node};

/// Interfaces that the addresses of a node are shared out to, however many there are.
const INTERFACES: usize = 10;

/// A node that is nowhere but in the node file.
#[derive(Clone, Debug)]
pub(crate) struct Stranger {
    /// From 0 on.
    number: usize,
    /// Its address has a part that changes.
    pub(crate) generation: u8,
    /// How many pods it has outside its networks.
    pods: std::ops::Range<usize>,
}

impl Stranger {
    /// So many, with as many pods outside their networks in all.
    pub(crate) fn many(nodes: usize, pods: usize) -> Vec<Self> {
        let first = |number: usize| number * pods / nodes.max(1);
        let one = |number| Self { number, generation: 0, pods: first(number)..first(number + 1) };
        (0..nodes).map(one).collect()
    }

    /// Behind the router; it answers to nobody.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        let (place, number) = (200 + self.generation % 50, self.number as u16);
        let [high, low] = number.to_be_bytes();
        [[10, place, high, low].into(), [0xfd00, place.into(), 0, 0, 0, 0, 0, number].into()]
    }

    /// An address of one of its networks.
    pub(crate) fn a_pod(&self) -> IpAddr {
        let network = 0x1000 + u16::try_from(self.number).unwrap_or(u16::MAX);
        [0xfd00, 0x10, 0x244, network, 0, 0, 0, 5].into()
    }

    /// Its entry in a node file.
    pub(crate) fn write(&self, text: &mut String) -> Result<()> {
        let number = self.number;
        // Small ones: the pod network of the cluster has no room for 5,000 of the usual size.
        let (third, fourth) = (128 + (number >> 6), (number & 63) << 2);
        let [ipv4, ipv6] = self.addresses();
        write!(
            text,
            "[[node]]\nname = \"stranger{number}\"\naddresses = [\"{ipv4}\", \"{ipv6}\"]\n\
             pod_cidrs = [\"10.244.{third}.{fourth}/30\", \"fd00:10:244:{:x}::/64\"",
            0x1000 + number
        )?;
        for pod in self.pods.clone() {
            write!(text, ", \"{}/126\"", pod_address(pod))?;
        }
        text.push_str("]\n\n");
        Ok(())
    }
}

/// A pod outside the large networks of its node. The smallest network that a node may have is its own: it is one
/// entry of the map, as a single address would be.
pub(crate) fn pod_address(pod: usize) -> String {
    let first = pod << 2;
    format!("fd00:10:244:f000::{:x}:{:x}", first >> 16, first & 0xffff)
}

/// The node file of a cluster, with strangers behind its own nodes.
///
/// # Errors
/// When the cluster has none.
pub(crate) fn node_file(cluster: &Cluster, strangers: &[Stranger]) -> Result<String> {
    let file = cluster.run().directory().join("nodes.toml");
    let mut text = own_part(&file)?;
    for stranger in strangers {
        stranger.write(&mut text)?;
    }
    Ok(text)
}

/// What stands before the first stranger.
fn own_part(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let first = text.find("[[node]]\nname = \"stranger").unwrap_or(text.len());
    Ok(text[..first].to_owned())
}

/// Gives a node so many addresses of pods, of a few interfaces; each with its own.
///
/// # Errors
/// When the plugin fails.
pub(crate) fn populate(
    node: &Arc<Node>,
    count: usize,
    run: &str,
) -> Result<Vec<(Namespace, Vec<IpAddr>)>> {
    let mut pods = Vec::new();
    let per_pod = count.div_ceil(INTERFACES).max(1);
    for first in (0..count).step_by(per_pod) {
        let name = format!("{run}-{}-crowd{first}", node.name);
        let pod = Namespace::new(&name, false)?;
        let last = (first + per_pod).min(count);
        let mut configuration = node.cni_configuration();
        // The distribution's plugins know no newer one.
        configuration["cniVersion"] = "1.0.0".into();
        let own = addresses(node, first..last)?;
        configuration["ipam"] = given(&own);
        let call = CniCall { command: "ADD", container_id: &name, netns: &pod.path() };
        if let Err(error) = node.cni_with(&call, &configuration)? {
            bail!("ADD of {name}: {error}");
        }
        pods.push((pod, own));
    }
    Ok(pods)
}

fn addresses(node: &Node, numbers: std::ops::Range<usize>) -> Result<Vec<IpAddr>> {
    let gateway = node.gateways[1].to_string();
    let network = gateway.trim_end_matches('1');
    numbers.map(|number| Ok(format!("{network}c:{number:x}").parse()?)).collect()
}

fn given(addresses: &[IpAddr]) -> Value {
    let address = |address: &IpAddr| json!({ "address": format!("{address}/128") });
    json!({ "type": "static", "addresses": addresses.iter().map(address).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests_of_crowds {
    use super::*;

    #[test]
    fn pods_are_spread_over_all_nodes() {
        let strangers = Stranger::many(3, 10);
        let all: Vec<usize> = strangers.iter().flat_map(|s| s.pods.clone()).collect();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert!(Stranger::many(0, 0).is_empty());
    }

    #[test]
    fn five_thousand_nodes_have_networks_of_their_own() {
        let mut text = String::new();
        for stranger in Stranger::many(5000, 0) {
            stranger.write(&mut text).unwrap();
        }
        let mut cidrs: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("pod_cidrs = ")).collect();
        cidrs.sort_unstable();
        cidrs.dedup();
        assert_eq!(cidrs.len(), 5000);
        assert!(cidrs.iter().all(|cidr| cidr.contains("10.244.1") || cidr.contains("10.244.2")));
        assert!(text.contains("10.244.206.28/30"), "{}", &text[text.len() - 300..]);
    }
}
