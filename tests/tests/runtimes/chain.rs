//! Plugins of the CNI project behind ours in a list.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::fabric::WORLD;
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::server::{ECHO_PORT, Server};

use super::left::Left;
use super::libcni::Library;
use super::{list, portmap_list};

const VERSION: &str = "1.0.0";

/// A pod that a list of plugins has wired up.
pub(super) struct Chained<'a> {
    pub(super) library: Library<'a>,
    pub(super) pod: Pod,
    list: Value,
    before: Left,
}

impl<'a> Chained<'a> {
    pub(super) fn add(node: &'a Arc<Node>, library: Library<'a>, list: Value) -> Result<Self> {
        let before = Left::now(node, None)?;
        let mut pod = node.bare_pod()?;
        let result = library.succeed("ADD", &pod, &list)?;
        pod.addresses = addresses(&result)?;
        Ok(Self { library, pod, list, before })
    }

    /// CHECK of all plugins in the list.
    pub(super) fn check(&self) -> Result<()> {
        self.library.succeed("CHECK", &self.pod, &self.list).map(drop)
    }

    /// Removes it; everything is as it was before.
    pub(super) fn delete(self) -> Result<()> {
        self.library.succeed("DEL", &self.pod, &self.list)?;
        self.before.wait_for(self.library.node, None)
    }
}

pub(super) fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().context("ips")?.iter();
    let texts = ips.filter_map(|ip| ip["address"].as_str()?.split('/').next());
    let mut addresses = texts.map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
    addresses.sort();
    Ok(addresses)
}

#[test]
fn portmap_publishes_a_port_as_an_interface_of_any_name() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        for ifname in ["eth0", "pod-side"] {
            let mut library = Library::new(node);
            library.ifname = ifname;
            library.capabilities = json!({"portMappings": [
                {"hostPort": ECHO_PORT, "containerPort": ECHO_PORT, "protocol": "tcp"},
                {"hostPort": ECHO_PORT, "containerPort": ECHO_PORT, "protocol": "udp"},
            ]});
            let chained = Chained::add(node, library, portmap_list(node, VERSION))?;
            let pod = &chained.pod;
            // Not `chained.check()`: that of portmap looks for the rules of IPv4 in the tables of IPv6.
            chained.library.succeed("CHECK", pod, &list(node, VERSION, &[]))?;
            let server = Server::start(&pod.namespace, &pod.addresses)?;
            let pods = [node.pod()?, cluster.node(2).pod()?];
            for from in [
                &cluster.fabric.world,
                &node.namespace,
                &cluster.node(2).namespace,
                &pods[0].namespace,
                &pods[1].namespace,
                &pod.namespace,
            ] {
                for address in node.addresses {
                    probe::tcp(from, address, 100_000)?;
                    probe::udp(from, address, 1000)?;
                }
            }
            drop(server);
            pods.iter().try_for_each(Pod::delete)?;
            chained.delete()?;
        }
        Ok(())
    });
}

#[test]
fn tuning_sets_switches_of_the_pods_namespace() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let tuning = json!({
            "type": "tuning",
            "sysctl": {"net.core.somaxconn": "517"},
            "allmulti": true,
        });
        let list = list(node, VERSION, &[tuning]);
        let chained = Chained::add(node, Library::new(node), list)?;
        chained.check()?;
        let namespace = &chained.pod.namespace;
        let somaxconn = namespace.run("cat /proc/sys/net/core/somaxconn")?;
        ensure!(somaxconn.trim() == "517", "{somaxconn}");
        let link = namespace.run("ip link show eth0")?;
        ensure!(link.contains("ALLMULTI"), "{link}");
        for gateway in node.gateways {
            probe::ping(namespace, gateway)?;
        }
        chained.delete()
    });
}

/// As Docker and ufw leave a host.
#[test]
fn firewall_lets_pods_out_where_the_host_forwards_nothing() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for tables in ["iptables", "ip6tables"] {
            node.namespace.run(&format!("{tables} -P FORWARD DROP"))?;
        }
        let world = WORLD.map(|address| address.parse::<IpAddr>().expect("an address"));
        let _server = Server::start(&cluster.fabric.world, &world)?;
        let firewall = json!({"type": "firewall", "backend": "iptables"});
        let chained = Chained::add(node, Library::new(node), list(node, VERSION, &[firewall]))?;
        chained.check()?;
        for address in world {
            probe::all_after_discovery(&chained.pod.namespace, address)?;
        }
        let other = node.pod()?;
        for address in world {
            ensure!(probe::ping(&other.namespace, address).is_err(), "{address} without firewall");
        }
        other.delete()?;
        chained.delete()
    });
}

#[test]
fn sbr_moves_the_routes_of_the_pod_to_a_table_of_their_own() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        let list = list(node, VERSION, &[json!({"type": "sbr"})]);
        let mut library = Library::new(node);
        library.ifname = "net1";
        let chained = Chained::add(node, library, list)?;
        chained.check()?;
        let namespace = &chained.pod.namespace;
        let rules = namespace.run("ip rule show")?;
        ensure!(rules.contains(&format!("from {}", chained.pod.addresses[0])), "{rules}");
        let remote = cluster.node(2).pod()?;
        let _server = Server::start(&remote.namespace, &remote.addresses)?;
        for (own, to) in chained.pod.addresses.iter().zip(&remote.addresses) {
            probe::tcp_from(namespace, Some(*own), *to, probe::BULK_BYTES)?;
        }
        chained.delete()
    });
}

/// What other pods send does not pass the host side of the veth, where the plugin limits.
#[test]
fn bandwidth_limits_what_the_node_sends() {
    const BITS_PER_SECOND: u32 = 8_000_000;
    const BYTES: usize = 1_500_000;
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
        let list = list(node, VERSION, &[bandwidth]);
        let mut library = Library::new(node);
        let burst = BITS_PER_SECOND / 10;
        library.capabilities = json!({"bandwidth": {
            "ingressRate": BITS_PER_SECOND, "ingressBurst": burst,
            "egressRate": BITS_PER_SECOND, "egressBurst": burst,
        }});
        let chained = Chained::add(node, library, list)?;
        chained.check()?;
        let pod = &chained.pod;
        let server = Server::start(&pod.namespace, &pod.addresses)?;
        for address in &pod.addresses {
            let start = Instant::now();
            probe::tcp(&node.namespace, *address, BYTES)?;
            // Less a generous part for the burst: without a limit it takes a fiftieth.
            let least = Duration::from_secs(1);
            ensure!(start.elapsed() > least, "{address}: {BYTES} bytes in {:?}", start.elapsed());
        }
        drop(server);
        chained.delete()
    });
}
