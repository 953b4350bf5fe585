//! Addresses of delegated plugins that are in no pod network: they work on this node.

use ipnet::IpNet;

use super::exists;
use crate::kernel::Observed;
use crate::model::Model;

/// Those of living pods that none of these networks has.
pub(super) fn of(model: &Model, observed: &Observed, networks: &[IpNet]) -> Vec<IpNet> {
    let delegated = model.attachments.iter().filter(|(_, attached)| attached.delegation.is_some());
    delegated
        .filter(|(name, attached)| exists(observed, name, attached.ifindex))
        .flat_map(|(_, attached)| &attached.addresses)
        .filter(|address| !networks.iter().any(|network| network.contains(*address)))
        .map(|address| IpNet::from(*address))
        .collect()
}
