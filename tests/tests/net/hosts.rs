//! Nodes and pods, and nodes among themselves.

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::probe;
use tests::server::Server;

#[test]
fn nodes_reach_each_other_by_their_pod_addresses() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let (one, two) = (cluster.node(1), cluster.node(2));
            let _server = Server::start(&two.namespace, &two.gateways)?;
            for gateway in two.gateways {
                probe::all(&one.namespace, gateway)?;
            }
            Ok(())
        });
    }
}

#[test]
fn direct() {
    Cluster::builder(Mode::Direct).test(nodes_and_pods_reach_each_other);
}

#[test]
fn direct_with_strict_rp_filter() {
    Cluster::builder(Mode::Direct).strict_rp_filter().test(nodes_and_pods_reach_each_other);
}

#[test]
fn vxlan() {
    Cluster::builder(Mode::Vxlan).test(nodes_and_pods_reach_each_other);
}

#[test]
fn vxlan_with_strict_rp_filter() {
    Cluster::builder(Mode::Vxlan).strict_rp_filter().test(nodes_and_pods_reach_each_other);
}

fn nodes_and_pods_reach_each_other(cluster: &Cluster) -> Result<()> {
    let (one, two) = (cluster.node(1), cluster.node(2));
    let pods = [one.pod()?, two.pod()?];
    let [_pod1, _pod2] = [
        Server::start(&pods[0].namespace, &pods[0].addresses)?,
        Server::start(&pods[1].namespace, &pods[1].addresses)?,
    ];
    let _servers = [one, two].map(|node| {
        let addresses = [node.addresses, node.gateways].concat();
        Server::start(&node.namespace, &addresses)
    });
    for pod in &pods {
        for node in [one, two] {
            for address in node.addresses.iter().chain(&node.gateways) {
                probe::all_after_discovery(&pod.namespace, *address)?;
            }
        }
    }
    for node in [one, two] {
        for pod in &pods {
            for (family, address) in pod.addresses.iter().enumerate() {
                probe::all(&node.namespace, *address)?;
                let seen = probe::seen_tcp(&node.namespace, *address)?;
                ensure!(seen == node.gateways[family], "{} is seen as {seen}", node.name);
            }
        }
    }
    Ok(())
}

#[test]
fn a_socket_on_the_nodes_own_address_reaches_remote_pods_in_direct_mode() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let (one, pod) = (cluster.node(1), cluster.node(2).pod()?);
        let _server = Server::start(&pod.namespace, &pod.addresses)?;
        for (own, pod) in one.addresses.iter().zip(&pod.addresses) {
            probe::tcp_from(&one.namespace, Some(*own), *pod, probe::BULK_BYTES)?;
        }
        Ok(())
    });
}
