//! Nodes among themselves, by their addresses among the pods.

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
