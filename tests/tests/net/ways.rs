//! The way to another node as the kernel has it: its device, its routers, its MTU.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::pod::Pod;
use tests::probe;
use tests::processor::stay;
use tests::server::Server;
use tests::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const NARROW: u64 = 1400;

#[test]
fn a_narrow_route_added_later_is_no_black_hole() {
    for (mode, overhead) in [(Mode::Direct, 0), (Mode::Vxlan, 50), (Mode::Auto, 0)] {
        Cluster::builder(mode).test(|cluster| {
            let (one, two) = (cluster.node(1), cluster.node(2));
            let (pod1, pod2) = (one.pod()?, two.pod()?);
            let _servers = [
                Server::start(&pod1.namespace, &pod1.addresses)?,
                Server::start(&pod2.namespace, &pod2.addresses)?,
            ];
            one.namespace.ip(&format!(
                "route add 192.168.1.12/32 dev eth0 mtu {NARROW}\n\
                 route add fd00:1::12/128 dev eth0 mtu {NARROW}"
            ))?;
            let mtu = NARROW - overhead;
            wait_until("the narrow way", PATIENCE, || {
                let status = one.status()?;
                ensure!(status["peers"][0]["ways"][0]["mtu"] == mtu, "{}", status["peers"]);
                ensure!(status["peers"][0]["ways"][1]["mtu"] == mtu, "{}", status["peers"]);
                ensure!(status["settled"] == true, "not settled: {}", status["problems"]);
                Ok(())
            })?;
            let told = one.status()?["node"]["podMtu"].as_u64().unwrap_or_default();
            for (family, headers) in [(0, 28), (1, 48)] {
                too_big_is_answered(&pod1, &pod2, family, (mtu - headers, told))?;
            }
            for (from, to) in [(&pod1, &pod2), (&pod2, &pod1)] {
                for address in &to.addresses {
                    probe::tcp(&from.namespace, *address, probe::BULK_BYTES)?;
                    probe::all(&from.namespace, *address)?;
                }
            }
            Ok(())
        });
    }
}

/// A packet that must not be fragmented and does not fit is answered, and what the answer says fits.
fn too_big_is_answered(from: &Pod, to: &Pod, family: usize, sizes: (u64, u64)) -> Result<()> {
    let (fits, told) = sizes;
    let address = to.addresses[family];
    probe::ping_with(&from.namespace, address, &["-M", "do", "-s", &fits.to_string()])?;
    let mut ping = from.namespace.command("ping");
    let too_big = (fits + 1).to_string();
    ping.args(["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &too_big, &address.to_string()]);
    let output = command::output(&mut ping)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).to_lowercase();
    ensure!(said.contains("mtu") && said.contains(&told.to_string()), "not {told}: {said}");
    Ok(())
}

/// Programs remember what the maps said of a flow.
#[test]
fn a_flow_to_a_pod_network_that_moved_ends() {
    for mode in [Mode::Direct, Mode::Vxlan] {
        Cluster::builder(mode).test(|cluster| {
            let (one, pod, remote) =
                (cluster.node(1), cluster.node(1).pod()?, cluster.node(2).pod()?);
            let file = fs::read_to_string(cluster.run().directory().join("nodes.toml"))?;
            let [ping4, ping6] = [0, 1].map(|family| {
                let (from, to) = (&pod.namespace, remote.addresses[family]);
                move || probe::ping(from, to)
            });
            // Each processor remembers for itself.
            stay()?;
            ping4()?;
            ping6()?;
            let moved = file.replace("10.244.2.0/24", "10.244.9.0/24");
            cluster.write_node_file(&moved.replace("fd00:10:244:2::/64", "fd00:10:244:9::/64"))?;
            wait_until("the other pod network", PATIENCE, || {
                let status = one.status()?;
                let cidr = &status["peers"][0]["ways"][0]["cidr"];
                ensure!(cidr == "10.244.9.0/24" && status["settled"] == true, "{status}");
                Ok(())
            })?;
            let before = one.counter("unknown_pod")?;
            ensure!(ping4().is_err() && ping6().is_err(), "still there");
            ensure!(one.counter("unknown_pod")? > before + 1, "not dropped as unknown");
            Ok(())
        });
    }
}

/// As when a machine is replaced behind its address, and nothing tells the others.
#[test]
fn a_node_with_another_mac_is_found_again() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (pod1, pod2) = (one.pod()?, two.pod()?);
        let _server = Server::start(&pod2.namespace, &pod2.addresses)?;
        for family in ["ipv4", "ipv6"] {
            one.namespace.sysctls(&[
                (&format!("{family}/neigh/eth0/base_reachable_time_ms"), "1000"),
                (&format!("{family}/neigh/eth0/delay_first_probe_time"), "1"),
            ])?;
        }
        for address in &pod2.addresses {
            probe::all(&pod1.namespace, *address)?;
        }
        for address in &two.addresses {
            let shown = one.namespace.run(&format!("ip neigh show {address}"))?;
            ensure!(shown.contains("managed") && shown.contains("lladdr"), "{shown}");
        }
        // Up all the time, and silent: node 1 hears neither ARP nor neighbour discovery of node 2.
        two.namespace
            .sysctls(&[("ipv4/conf/eth0/arp_notify", "0"), ("ipv6/conf/eth0/ndisc_notify", "0")])?;
        two.namespace.ip("link set eth0 address 02:00:00:00:77:02")?;
        wait_until("the new MAC", Duration::from_secs(60), || {
            for address in &two.addresses {
                let shown = one.namespace.run(&format!("ip neigh show {address}"))?;
                ensure!(shown.contains("02:00:00:00:77:02"), "{shown}");
            }
            Ok(())
        })?;
        for address in &pod2.addresses {
            probe::all(&pod1.namespace, *address)?;
        }
        cluster.write_node_file(&node_file_without_the_second())?;
        wait_until("the end of the entries", PATIENCE, || {
            let shown = one.namespace.run("ip neigh show")?;
            ensure!(!shown.contains("managed"), "{shown}");
            Ok(())
        })
    });
}

fn node_file_without_the_second() -> String {
    "[[node]]\nname = \"node1\"\naddresses = [\"192.168.1.11\", \"fd00:1::11\"]\n\
     pod_cidrs = [\"10.244.1.0/24\", \"fd00:10:244:1::/64\"]\n"
        .to_owned()
}

#[test]
fn auto_where_one_node_sees_a_link_and_the_other_a_router() {
    Cluster::builder(Mode::Auto).test(|cluster| {
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (pod1, pod2) = (one.pod()?, two.pod()?);
        let _server = Server::start(&pod2.namespace, &pod2.addresses)?;
        for address in &pod2.addresses {
            probe::all(&pod1.namespace, *address)?;
        }
        ensure!(one.counter("pod_to_tunnel")? == 0, "tunnelled on one link");
        one.namespace.ip(
            "route add 192.168.1.12/32 via 192.168.1.1\nroute add fd00:1::12/128 via fd00:1::1",
        )?;
        wait_until("the tunnel", PATIENCE, || {
            let status = one.status()?;
            let ways = &status["peers"][0]["ways"];
            ensure!(ways[0]["way"] == "vxlan" && ways[1]["way"] == "vxlan", "{ways}");
            ensure!(status["settled"] == true, "not settled: {}", status["problems"]);
            Ok(())
        })?;
        let direct = one.counter("pod_to_direct")?;
        for address in &pod2.addresses {
            probe::tcp(&pod1.namespace, *address, probe::BULK_BYTES)?;
            probe::all(&pod1.namespace, *address)?;
        }
        ensure!(one.counter("pod_to_direct")? == direct, "plain over a router");
        ensure!(two.counter("pod_to_tunnel")? == 0, "the second still sees a link");
        Ok(())
    });
}
