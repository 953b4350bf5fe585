//! Everybody reaches everybody.

use anyhow::Result;
use tests::cluster::{Cluster, Mode};
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;

#[test]
fn direct() {
    Cluster::builder(Mode::Direct).test(everybody_reaches_everybody);
}

#[test]
fn vxlan() {
    Cluster::builder(Mode::Vxlan).test(everybody_reaches_everybody);
}

#[test]
fn direct_with_strict_rp_filter() {
    Cluster::builder(Mode::Direct).strict_rp_filter().test(everybody_reaches_everybody);
}

#[test]
fn vxlan_with_strict_rp_filter() {
    Cluster::builder(Mode::Vxlan).strict_rp_filter().test(everybody_reaches_everybody);
}

fn everybody_reaches_everybody(cluster: &Cluster) -> Result<()> {
    let pods: Vec<Pod> =
        [1, 1, 2, 2].iter().map(|n| cluster.node(*n).pod()).collect::<Result<_>>()?;
    let _servers: Vec<Server> = pods
        .iter()
        .map(|pod| Server::start(&pod.namespace, &pod.addresses))
        .collect::<Result<_>>()?;
    for from in &pods {
        for to in &pods {
            for address in &to.addresses {
                probe::all(&from.namespace, *address)?;
            }
        }
    }
    Ok(())
}
