//! What `podwire-agent status` shows.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::fabric::WORLD;
use tests::node::Node;
use tests::probe;
use tests::wait::wait_until;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);
const DATAGRAMS: u64 = 7;
/// Nobody listens there.
const DEAD_PORT: u16 = 9;

#[test]
fn the_document_says_what_is_so() {
    for (mode, mtu) in [(Mode::Direct, 1500), (Mode::Vxlan, 1450)] {
        Cluster::builder(mode).nodes(3).test(|cluster| {
            let node = cluster.node(1);
            let pod = node.pod()?;
            let status = node.status()?;
            same(
                &status["node"],
                &json!({
                    "name": "node1",
                    "addresses": ["192.168.1.11", "fd00:1::11"],
                    "podCidrs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
                    "clusterCidrs": ["10.244.0.0/16", "fd00:10:244::/48"],
                    "encapsulation": mode.name(),
                    "uplinks": ["eth0"],
                    "podMtu": mtu,
                    "bigTcp": { "why": match mode {
                        Mode::Direct => "off: eth0 takes 65536 of IPv4, eth0 takes 65536 of IPv6",
                        Mode::Vxlan | Mode::Auto =>
                            "off: packets may go through VXLAN, which takes no larger ones",
                    } },
                }),
            )?;
            same(&status["pid"], &json!(node.agent_pid()?))?;
            same(&status["settled"], &json!(true))?;
            same(&status["drift"], &json!({}))?;
            same(&status["problems"], &json!([]))?;
            same(
                &status["pools"][0],
                &json!({"cidr": "10.244.1.0/24", "used": 1, "capacity": 253}),
            )?;
            let name = pod.host_ifname()?;
            let shown = &status["pods"][0];
            same(&shown["interface"], &json!(name))?;
            same(&shown["containerId"], &json!(pod.container_id))?;
            same(&shown["ifname"], &json!("eth0"))?;
            same(&shown["network"], &json!("podwire"))?;
            same(&shown["addresses"], &json!(pod.addresses))?;
            same(&shown["present"], &json!(true))?;
            let link = node.namespace.run(&format!("ip -j link show {name}"))?;
            let link: Value = serde_json::from_str(&link)?;
            same(&shown["ifindex"], &link[0]["ifindex"])?;
            peers(&status, mode, mtu)?;
            programs(node, &status)
        });
    }
}

fn peers(status: &Value, mode: Mode, mtu: u32) -> Result<()> {
    let way = |number: u8, cidr: &str| {
        let is_plain_ipv6 = mode == Mode::Direct && cidr.contains(':');
        let node = if is_plain_ipv6 {
            format!("fd00:1::1{number}")
        } else {
            format!("192.168.1.1{number}")
        };
        json!({ "cidr": cidr, "way": mode.name(), "node": node, "mtu": mtu })
    };
    let peer = |number: u8| {
        json!({
            "name": format!("node{number}"),
            "addresses": [format!("192.168.1.1{number}"), format!("fd00:1::1{number}")],
            "ways": [
                way(number, &format!("10.244.{number}.0/24")),
                way(number, &format!("fd00:10:244:{number}::/64")),
            ],
        })
    };
    same(&status["peers"], &json!([peer(2), peer(3)]))
}

/// As bpftool knows them.
fn programs(node: &Node, status: &Value) -> Result<()> {
    let programs = status["programs"].as_array().context("programs")?;
    let wanted = ["pw_from_host", "pw_from_net", "pw_from_pod", "pw_from_tunnel", "pw_to_pod"];
    ensure!(programs.len() == wanted.len(), "{programs:?}");
    for (program, name) in programs.iter().zip(wanted) {
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["-j", "prog", "show", "pinned"]).arg(node.bpffs.join("programs").join(name));
        let shown: Value = serde_json::from_str(&command::run(&mut bpftool)?)?;
        same(program, &json!({ "name": name, "id": shown["id"] }))?;
    }
    Ok(())
}

fn same(found: &Value, wanted: &Value) -> Result<()> {
    ensure!(found == wanted, "{found}, not {wanted}");
    Ok(())
}

#[test]
fn counters_count_each_packet() {
    for (mode, counter) in [(Mode::Direct, "pod_to_direct"), (Mode::Vxlan, "pod_to_tunnel")] {
        Cluster::builder(mode).test(|cluster| {
            let (pod, remote) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
            for address in &remote.addresses {
                let before = cluster.node(1).counter(counter)?;
                let to = SocketAddr::new(*address, DEAD_PORT);
                pod.namespace.enter(|| -> Result<()> {
                    let socket = probe::udp_socket(None, to.ip())?;
                    (0..DATAGRAMS).try_for_each(|_| socket.send_to(b"x", to).map(drop))?;
                    Ok(())
                })?;
                wait_until(counter, SEEN_TIME_MAX, || {
                    let counted = cluster.node(1).counter(counter)? - before;
                    ensure!(counted == DATAGRAMS, "{counted} packets, not {DATAGRAMS}");
                    Ok(())
                })?;
            }
            Ok(())
        });
    }
}

#[test]
fn the_table_shows_node_pods_peers_and_no_problem() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.pod()?;
        let table = node.status_text(&[])?;
        let wanted = [
            "the data plane is as it should be",
            "192.168.1.11, fd00:1::11",
            "vxlan",
            &pod.host_ifname()?,
            "10.244.1.2",
            "node2",
            "10.244.2.0/24",
            "pw_from_tunnel",
            "Problems\n  none",
        ];
        for text in wanted {
            ensure!(table.contains(text), "{text} is not in\n{table}");
        }
        Ok(())
    });
}

#[test]
fn a_firewall_that_forwards_nothing_is_named_until_it_lets_us_pass() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let nft = |text: &str| {
            let mut nft = node.namespace.command("nft");
            let output = command::feed(nft.args(["-f", "-"]), text)?;
            command::checked(&nft, &output)
        };
        let pod = node.pod()?;
        let families = [("ip", "iptables -I FORWARD"), ("ip6", "ip6tables -I FORWARD")];
        for ((family, tool), world) in families.into_iter().zip(WORLD) {
            nft(&format!(
                "table {family} filter {{ chain FORWARD {{ type filter hook forward priority 0; \
                 policy drop; }}; }}"
            ))?;
            let problems = node.status()?["problems"].to_string();
            let wanted =
                [format!("nftables chain {family} filter FORWARD, policy drop"), tool.into()];
            for text in wanted {
                ensure!(problems.contains(&text), "{text} is not in {problems}");
            }
            let table = node.status_text(&[])?;
            ensure!(table.contains("policy drop"), "{table}");
            nft(&format!("add rule {family} filter FORWARD iifname podwire0 accept"))?;
            nft(&format!("add rule {family} filter FORWARD oifname podwire0 accept"))?;
            same(&node.status()?["problems"], &json!([]))?;
            probe::ping(&pod.namespace, world.parse()?)?;
        }
        Ok(())
    });
}

#[test]
fn an_uplink_that_loses_its_address_is_named() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        node.namespace.ip("address delete 192.168.1.11/24 dev eth0")?;
        wait_until("the problem", SEEN_TIME_MAX, || {
            let problems = node.status()?["problems"].to_string();
            ensure!(problems.contains("no interface has 192.168.1.11"), "{problems}");
            Ok(())
        })?;
        node.namespace.ip("address add 192.168.1.11/24 dev eth0")?;
        wait_until("no problem", SEEN_TIME_MAX, || same(&node.status()?["problems"], &json!([])))
    });
}
