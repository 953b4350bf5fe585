//! Service addresses as kube-proxy makes them: DNAT, and packets of unknown state dropped.

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::namespace::Namespace;
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;

const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];

#[test]
fn a_service_reaches_local_and_remote_pods() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let node = cluster.node(1);
            let (client, local, remote) = (node.pod()?, node.pod()?, cluster.node(2).pod()?);
            let _servers = [
                Server::start(&local.namespace, &local.addresses)?,
                Server::start(&remote.namespace, &remote.addresses)?,
            ];
            for backend in [&local, &remote] {
                translate(&node.namespace, backend)?;
                for (service, own) in SERVICE.iter().zip(&backend.addresses) {
                    let service = service.parse()?;
                    for from in [&client.namespace, &node.namespace] {
                        probe::tcp(from, service, probe::BULK_BYTES)?;
                        probe::udp(from, service, 1000)?;
                        probe::udp(from, service, 8000)?;
                    }
                    ensure!(*own != service);
                }
            }
            // A pod that is its own backend.
            translate(&node.namespace, &local)?;
            probe::tcp(&local.namespace, SERVICE[0].parse()?, 100_000)
        });
    }
}

/// The one thing that differs until services are ours: `doctor` says it, and docs/kubernetes.md.
#[test]
fn a_backend_sees_the_node_of_who_asks_for_a_service() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let node = cluster.node(1);
            let (client, local, remote) = (node.pod()?, node.pod()?, cluster.node(2).pod()?);
            for backend in [&local, &remote] {
                let _server = Server::start(&backend.namespace, &backend.addresses)?;
                translate(&node.namespace, backend)?;
                for (at, service) in SERVICE.iter().enumerate() {
                    let service = service.parse()?;
                    for from in [&client.namespace, &node.namespace] {
                        let seen =
                            [probe::seen_tcp(from, service)?, probe::seen_udp(from, service)?];
                        ensure!(seen == [node.gateways[at]; 2], "through {service}: {seen:?}");
                    }
                    let seen = probe::seen_tcp(&client.namespace, backend.addresses[at])?;
                    ensure!(seen == client.addresses[at], "direct: {seen}");
                }
            }
            Ok(())
        });
    }
}

fn translate(node: &Namespace, backend: &Pod) -> Result<()> {
    let [ipv4, ipv6] = [&backend.addresses[0], &backend.addresses[1]];
    let rules = format!(
        "table inet services\ndelete table inet services\ntable inet services {{
           chain forward {{
             type filter hook forward priority 0
             ct state invalid drop
           }}
           chain prerouting {{
             type nat hook prerouting priority dstnat
             ip daddr {} dnat ip to {ipv4}
             ip6 daddr {} dnat ip6 to {ipv6}
           }}
           chain output {{
             type nat hook output priority -100
             ip daddr {} dnat ip to {ipv4}
             ip6 daddr {} dnat ip6 to {ipv6}
           }}
         }}",
        SERVICE[0], SERVICE[1], SERVICE[0], SERVICE[1]
    );
    let mut nft = node.command("nft");
    nft.args(["-f", "-"]);
    let output = command::feed(&mut nft, &rules)?;
    command::checked(&nft, &output).map(drop)
}
