//! Several networks on one pod.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::fabric::WORLD;
use tests::namespace::Namespace;
use tests::probe;
use tests::server::Server;

use super::chain::addresses;
use super::left::Left;
use super::libcni::Library;
use super::list;

#[test]
fn each_of_several_networks_of_ours_can_be_used() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(three_networks);
    }
}

fn three_networks(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let before = Left::now(node, None)?;
    let pod = node.bare_pod()?;
    let mut networks = Vec::new();
    let mut all = Vec::new();
    for ifname in ["eth0", "net1", "net2"] {
        let mut list = list(node, "1.0.0", &[]);
        list["name"] = format!("network-of-{ifname}").into();
        let mut library = Library::new(node);
        library.ifname = ifname;
        let result = library.succeed("ADD", &pod, &list)?;
        library.succeed("CHECK", &pod, &list)?;
        let routes = result["routes"].as_array().into_iter().flatten();
        let everywhere = routes.clone().filter(|route| {
            route["dst"].as_str().is_some_and(|destination| destination.ends_with("/0"))
        });
        ensure!(everywhere.count() == if ifname == "eth0" { 2 } else { 0 }, "{result}");
        ensure!(ifname == "eth0" || routes.count() == 0, "{result}");
        all.push(addresses(&result)?);
        networks.push((library, list));
    }
    let remote = cluster.node(2).pod()?;
    let local = node.pod()?;
    let world = WORLD.map(|address| address.parse::<IpAddr>().expect("an address"));
    let _world = Server::start(&cluster.fabric.world, &world)?;
    let _servers = [
        Server::start(&pod.namespace, &all.concat())?,
        Server::start(&remote.namespace, &remote.addresses)?,
        Server::start(&local.namespace, &local.addresses)?,
    ];
    while let Some((library, list)) = networks.pop() {
        for other in [&remote, &local] {
            for own in &all {
                each_way(&pod.namespace, own, &other.namespace, &other.addresses)?;
            }
            // Without a wish, the first one is the source, as before.
            for (first, to) in all[0].iter().zip(&other.addresses) {
                let seen = probe::seen_tcp(&pod.namespace, *to)?;
                ensure!(seen == *first, "{to} sees {seen}");
            }
        }
        for own in &all {
            for (own, to) in own.iter().zip(world) {
                probe::tcp_from(&pod.namespace, Some(*own), to, 100_000)?;
            }
        }
        library.succeed("DEL", &pod, &list)?;
        all.pop();
        for (library, list) in &networks {
            library.succeed("CHECK", &pod, list)?;
        }
    }
    local.delete()?;
    before.wait_for(node, None)
}

fn each_way(pod: &Namespace, own: &[IpAddr], other: &Namespace, to: &[IpAddr]) -> Result<()> {
    for (own, to) in own.iter().zip(to) {
        probe::tcp_from(pod, Some(*own), *to, 100_000)?;
        probe::tcp(other, *own, 100_000)?;
        probe::udp(other, *own, 1000)?;
    }
    Ok(())
}

/// What a second interface sends goes by a rule and a table of its own.
#[test]
fn check_looks_at_rule_and_table_of_a_second_interface() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for (what, again) in [
            ("ip rule delete from IPV4 lookup TABLE", "ip rule add from IPV4 lookup TABLE"),
            ("ip -6 rule delete from IPV6 lookup TABLE", "ip -6 rule add from IPV6 lookup TABLE"),
            ("ip route flush table TABLE", ""),
        ] {
            let pod = node.pod()?;
            let mut library = Library::new(node);
            library.ifname = "net1";
            let list = list(node, "1.1.0", &[]);
            let own = addresses(&library.succeed("ADD", &pod, &list)?)?;
            library.succeed("CHECK", &pod, &list)?;
            let rules = pod.namespace.run("ip rule show")?;
            let table = rules.split("lookup ").find_map(|rest| {
                rest.split_whitespace().next().filter(|table| table.parse::<u32>().is_ok())
            });
            let table = table.with_context(|| format!("no table of its own: {rules}"))?;
            let [ipv4, ipv6] = [0, 1].map(|family: usize| own[family].to_string());
            let filled = |text: &str| {
                text.replace("IPV4", &ipv4).replace("IPV6", &ipv6).replace("TABLE", table)
            };
            pod.namespace.run(&filled(what))?;
            library.fail("CHECK", &pod, &list, 102).context(what)?;
            if !again.is_empty() {
                pod.namespace.run(&filled(again))?;
                library.succeed("CHECK", &pod, &list)?;
            }
            library.succeed("DEL", &pod, &list)?;
            pod.delete()?;
        }
        Ok(())
    });
}

/// As Multus has it where another network is the cluster's default.
#[test]
fn a_pod_with_a_default_route_of_others_keeps_it() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        let before = Left::now(node, None)?;
        let pod = node.bare_pod()?;
        let bridge = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [{
            "type": "bridge", "bridge": "other0", "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": node.directory.join("host-local"),
                "ranges": [[{"subnet": "10.99.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }]});
        let first = Library::new(node);
        first.succeed("ADD", &pod, &bridge)?;
        let routes = || pod.namespace.run("ip -4 route show default");
        let default = routes()?;
        let mut second = Library::new(node);
        second.ifname = "net1";
        let list = list(node, "1.0.0", &[]);
        let result = second.succeed("ADD", &pod, &list)?;
        second.succeed("CHECK", &pod, &list)?;
        ensure!(routes()? == default, "{} and before {default}", routes()?);
        // The bridge has no IPv6: there the default route is free.
        let dst = |route: &Value| route["dst"].as_str().map(str::to_owned);
        let told: Vec<_> = result["routes"].as_array().context("routes")?.iter().map(dst).collect();
        ensure!(told == [Some("::/0".to_owned())], "{result}");
        let remote = cluster.node(2).pod()?;
        let own = addresses(&result)?;
        let _servers = [
            Server::start(&pod.namespace, &own)?,
            Server::start(&remote.namespace, &remote.addresses)?,
        ];
        each_way(&pod.namespace, &own, &remote.namespace, &remote.addresses)?;
        second.succeed("DEL", &pod, &list)?;

        // With routes to the cluster, what the pod sends there without a wish goes by Podwire too.
        let mut list = list;
        list["plugins"][0]["ipam"] = json!({
            "type": "host-local", "dataDir": node.directory.join("host-local"),
            "ranges": [[{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.200"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        });
        let result = second.succeed("ADD", &pod, &list)?;
        second.succeed("CHECK", &pod, &list)?;
        ensure!(result["routes"][0]["dst"] == "10.244.0.0/16", "{result}");
        ensure!(routes()? == default, "{} and before {default}", routes()?);
        let own = addresses(&result)?;
        let seen = probe::seen_tcp(&pod.namespace, remote.addresses[0])?;
        ensure!(own == [seen], "{own:?} is seen as {seen}");
        second.succeed("DEL", &pod, &list)?;
        first.succeed("DEL", &pod, &bridge)?;
        node.namespace.ip("link delete other0")?;
        before.wait_for(node, None)
    });
}
