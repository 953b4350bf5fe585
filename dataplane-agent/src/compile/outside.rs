//! Addresses in no pod network of the node: of delegated plugins, or older than the node's networks. They
//! work on this node.

use ipnet::IpNet;

use super::exists;
use crate::kernel::Observed;
use crate::model::{Model, Node};

/// Those of living pods that none of these networks has.
pub(super) fn of(model: &Model, observed: &Observed, networks: &[IpNet]) -> Vec<IpNet> {
    let living = model.attachments.iter();
    living
        .filter(|(name, attached)| exists(observed, name, attached.ifindex))
        .flat_map(|(_, attached)| &attached.addresses)
        .filter(|address| !networks.iter().any(|network| network.contains(*address)))
        .map(|address| IpNet::from(*address))
        .collect()
}

/// Names those that the node's own pools gave, in an earlier time.
pub(super) fn problem(model: &Model, own: &Node) -> Option<String> {
    let of_pools = model.attachments.values().filter(|attached| attached.delegation.is_none());
    let addresses: Vec<String> = of_pools
        .flat_map(|attached| &attached.addresses)
        .filter(|address| !own.pod_cidrs.iter().any(|network| network.contains(*address)))
        .map(ToString::to_string)
        .collect();
    (!addresses.is_empty()).then(|| {
        format!(
            "pods have addresses outside the pod networks of {}, and other nodes do not reach them \
             ({}): make these pods anew",
            own.name,
            addresses.join(", ")
        )
    })
}
