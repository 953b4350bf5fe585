//! Neighbour entries that the kernel keeps fresh by itself (`NTF_EXT_MANAGED`, kernel 5.16).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::dump::dump;
use super::error::Context as _;
use super::netlink::{Netlink, unless};
use crate::kernel::{KernelError, Link, Neighbour, ROUTE_PROTOCOL};

/// Entries that matter to us.
#[derive(Default)]
pub(super) struct Neighbours {
    pub(super) ours: BTreeSet<Neighbour>,
    /// What somebody has written down for good.
    pub(super) fixed: BTreeSet<Neighbour>,
}

impl Netlink {
    pub(super) async fn neighbours(
        &self,
        interfaces: &BTreeMap<String, Link>,
    ) -> Result<Neighbours, KernelError> {
        let names: BTreeMap<u32, &String> =
            interfaces.values().map(|link| (link.ifindex, &link.name)).collect();
        let mut found = Neighbours::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = NeighbourMessage::default();
            all.header.family = family;
            let listed = dump(RouteNetlinkMessage::GetNeighbour(all), |entry| {
                let RouteNetlinkMessage::NewNeighbour(message) = entry else { return };
                let device = names.get(&message.header.ifindex);
                let (Some(device), Some(address)) = (device, address(&message)) else { return };
                let neighbour = Neighbour { device: (*device).clone(), address };
                if is_ours(&message) {
                    found.ours.insert(neighbour);
                } else if message.header.state == NeighbourState::Permanent {
                    found.fixed.insert(neighbour);
                }
            });
            listed.await.context(|| "list the neighbours".to_owned())?;
        }
        Ok(found)
    }

    /// Without collection by the kernel: on a large link there are more than its thresholds allow.
    pub(super) async fn put_neighbour(&self, neighbour: &Neighbour) -> Result<(), KernelError> {
        let what = || format!("put the neighbour {} dev {}", neighbour.address, neighbour.device);
        let index = Self::index(&neighbour.device)?;
        let request = self.handle.neighbours().add(index, neighbour.address);
        let mut request = request.state(NeighbourState::None).flags(NeighbourFlags::ExtLearned);
        request.message_mut().attributes.extend([
            NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)),
            NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
        ]);
        request.replace().execute().await.context(what)
    }

    pub(super) async fn remove_neighbour(&self, neighbour: &Neighbour) -> Result<(), KernelError> {
        let Ok(index) = Self::index(&neighbour.device) else { return Ok(()) };
        let request = self.handle.neighbours().add(index, neighbour.address);
        let mut request = request.state(NeighbourState::None);
        let message = std::mem::take(request.message_mut());
        let result = self.handle.neighbours().del(message).execute().await;
        unless(result, &[libc::ENOENT, libc::ENODEV])
            .context(|| format!("remove the neighbour {}", neighbour.address))
    }
}

fn is_ours(message: &NeighbourMessage) -> bool {
    let protocol = NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL));
    message.attributes.contains(&protocol)
        && message.attributes.iter().any(|attribute| {
            matches!(attribute, NeighbourAttribute::ExtFlags(flags)
                if flags.contains(NeighbourExtFlags::Managed))
        })
}

fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) = attribute {
            Some(IpAddr::V4(*ip))
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) = attribute {
            Some(IpAddr::V6(*ip))
        } else {
            None
        }
    })
}
