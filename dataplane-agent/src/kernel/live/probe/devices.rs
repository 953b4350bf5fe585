//! Interfaces and routes, also those that are not ours.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Answer, Probe};
use crate::kernel::live::device::port;
use crate::kernel::live::dump::dump;
use crate::kernel::live::error::Context as _;
use crate::kernel::live::netlink::{Netlink, RawLink, errno};
use crate::kernel::live::route::destination;
use crate::kernel::{KernelError, Link};

/// An interface.
#[derive(Clone, Debug)]
pub struct Device {
    /// What all interfaces have.
    pub link: Link,
    /// UDP port of a VXLAN device.
    pub vxlan_port: Option<u16>,
    /// Its XDP program.
    pub xdp: Option<u32>,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    /// Where to.
    pub destination: IpNet,
    /// Interfaces that it uses.
    pub ifindexes: Vec<u32>,
    /// Who has made it, as `ip route` shows it.
    pub protocol: String,
    /// It leads nowhere on purpose.
    pub is_blackhole: bool,
}

/// All interfaces, by name. Must be called inside a tokio runtime.
///
/// # Errors
/// When the kernel does not list them.
pub async fn devices() -> Result<BTreeMap<String, Device>, KernelError> {
    let links = Netlink::open()?.links().await?;
    Ok(links.into_iter().map(|(name, raw)| (name, device(raw))).collect())
}

/// The routes of the main table that are wanted. Must be called inside a tokio runtime.
///
/// # Errors
/// When the kernel does not list them.
pub async fn routes(
    mut is_wanted: impl FnMut(&SeenRoute) -> bool,
) -> Result<Vec<SeenRoute>, KernelError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        filter.header.table = RouteHeader::RT_TABLE_MAIN;
        let listed = dump(RouteNetlinkMessage::GetRoute(filter), |entry| {
            let RouteNetlinkMessage::NewRoute(message) = entry else { return };
            routes.extend(seen(&message).filter(&mut is_wanted));
        });
        match listed.await {
            // A kernel without IPv6 has no such table.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            result => result.context(|| "list the routes".to_owned())?,
        }
    }
    Ok(routes)
}

/// Whether the kernel, or a module that it can load, has these kinds of devices. Must be called inside a
/// tokio runtime.
///
/// It is asked for one with a group's address, which it refuses (EADDRNOTAVAIL) once it knows the kind, and
/// before it makes anything (`veth_validate`, `vxlan_validate`, as of 6.18); else it says EOPNOTSUPP.
pub async fn kinds(kinds: &[&str]) -> Vec<Probe> {
    let mut probes = Vec::new();
    for kind in kinds {
        probes.push(Probe { name: (*kind).to_owned(), answer: has_kind(kind).await });
    }
    probes
}

const A_GROUP: [u8; 6] = [1, 0, 0, 0, 0, 0];

async fn has_kind(kind: &str) -> Answer {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return Answer::Unknown(error.to_string()),
    };
    let kind = match kind {
        "veth" => InfoKind::Veth,
        "vxlan" => InfoKind::Vxlan,
        other => InfoKind::Other(other.to_owned()),
    };
    let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
        .name("podwire-probe")
        .address(A_GROUP.to_vec())
        .build();
    let result = netlink.handle.link().add(message).execute().await;
    match errno(&result) {
        Some(libc::EADDRNOTAVAIL) => Answer::Yes,
        Some(libc::EOPNOTSUPP) => Answer::No,
        _ => match result {
            Ok(()) => Answer::Yes,
            Err(error) => Answer::Unknown(error.to_string()),
        },
    }
}

fn device(raw: RawLink) -> Device {
    Device { vxlan_port: (port(&raw) != 0).then(|| port(&raw)), xdp: raw.xdp, link: raw.link }
}

fn seen(message: &RouteMessage) -> Option<SeenRoute> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let is_blackhole = matches!(
        message.header.kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
    );
    let mut ifindexes = Vec::new();
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            ifindexes.push(*index);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            ifindexes.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    Some(SeenRoute {
        destination: destination(message)?,
        ifindexes,
        protocol: message.header.protocol.to_string(),
        is_blackhole,
    })
}
