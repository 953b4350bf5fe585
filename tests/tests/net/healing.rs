//! Somebody breaks what is ours.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::fabric::WORLD;
use tests::node::Node;
use tests::probe;
use tests::wait::wait_until;

/// What the kernel tells about is seen at once, the rest by looking.
const HEAL_TIME_MAX: Duration = Duration::from_secs(40);

/// What is broken, and the kind under which it is reported.
fn damages(node: &Node, pod: &str) -> Vec<(&'static str, &'static str, Command)> {
    let ip = |words: &str| {
        let mut ip = Command::new("ip");
        ip.args(["-n", node.namespace.name()]).args(words.split(' '));
        ip
    };
    let pinned = |words: &str, pin: &str| {
        let mut bpftool = Command::new("bpftool");
        bpftool.args(words.split(' ')).arg(node.bpffs.join(pin));
        bpftool
    };
    let mut nft = node.namespace.command("nft");
    nft.args(["delete", "table", "inet", "podwire"]);
    let mut delete = pinned("map delete pinned", "maps/pw_pods");
    let key = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 244, 1, 2].map(|b: u8| b.to_string());
    delete.args(["key"]).args(key);
    let mut unpin = Command::new("rm");
    unpin.arg(node.bpffs.join(format!("links/{pod}-ingress")));
    vec![
        ("the route", "route", ip("route delete 10.244.0.0/16")),
        ("the IPv6 route", "route", ip("-6 route delete fd00:10:244::/48")),
        ("the host device", "device", ip("link delete podwire0")),
        ("the tunnel", "device", ip("link delete podwire-vxlan")),
        ("an address", "address", ip("address flush dev podwire0")),
        ("the state of the host device", "device", ip("link set podwire0 down")),
        ("the nftables table", "nftables", nft),
        ("an entry of a pod", "pod", delete),
        ("a link of the uplink", "link", pinned("link detach pinned", "links/eth0-ingress")),
        ("the pin of a pod", "link", unpin),
    ]
}

#[test]
fn what_somebody_deletes_is_put_back_and_reported() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(1);
        let (pod, remote) = (node.pod()?, cluster.node(2).pod()?);
        ensure!(pod.addresses[0].to_string() == "10.244.1.2", "another first address");
        for (what, kind, mut damage) in damages(node, &pod.host_ifname()?) {
            let before = drift(node, kind)?;
            command::run(&mut damage).context(what)?;
            wait_until(what, HEAL_TIME_MAX, || {
                let status = node.status()?;
                ensure!(status["settled"] == true, "{}", status["problems"]);
                ensure!(drift(node, kind)? > before, "not reported: {}", status["drift"]);
                Ok(())
            })?;
            let world = WORLD.map(|address| address.parse().expect("an address"));
            for address in remote.addresses.iter().chain(&world) {
                probe::ping(&pod.namespace, *address).context(what)?;
            }
            probe::ping(&node.namespace, pod.addresses[0]).context(what)?;
            probe::ping(&node.namespace, remote.addresses[1]).context(what)?;
        }
        Ok(())
    });
}

#[test]
fn a_sysctl_is_set_back() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        node.namespace.sysctls(&[("ipv4/ip_forward", "0")])?;
        wait_until("forwarding", HEAL_TIME_MAX, || {
            ensure!(drift(node, "sysctl")? > 0);
            let value = node.namespace.run("sysctl -n net.ipv4.ip_forward")?;
            ensure!(value.trim() == "1");
            Ok(())
        })
    });
}

fn drift(node: &Arc<Node>, kind: &str) -> Result<u64> {
    Ok(node.status()?["drift"][kind].as_u64().unwrap_or(0))
}

#[test]
fn a_firewall_that_forwards_nothing_is_named() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        node.namespace.run("nft add table ip filter")?;
        let mut nft = node.namespace.command("nft");
        nft.args(["add", "chain", "ip", "filter", "FORWARD"]);
        nft.arg("{ type filter hook forward priority 0; policy drop; }");
        command::run(&mut nft)?;
        wait_until("the problem", HEAL_TIME_MAX, || {
            let problems = node.status()?["problems"].to_string();
            ensure!(problems.contains("FORWARD") && problems.contains("iptables -I"), "{problems}");
            Ok(())
        })
    });
}
