//! Links, addresses and routes through rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_core::abi::Mac;
use ipnet::IpNet;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec};

use super::dump::dump;
use super::error::{Context as _, refusal};
use crate::kernel::{Aggregates, HOST_DEVICE, KernelError, LEGACY_MAX, Link, Medium};

/// The netlink socket of the namespace.
pub(super) struct Netlink {
    pub(super) handle: Handle,
}

/// What a link's message says of things that we set.
#[derive(Clone, Debug)]
pub(super) struct RawLink {
    pub(super) link: Link,
    pub(super) flags: LinkFlags,
    pub(super) kind: Option<InfoKind>,
    pub(super) vxlan: Vec<InfoVxlan>,
    /// The other end of a veth pair in the same namespace.
    pub(super) peer: Option<u32>,
    /// Makes no IPv6 link-local address of its own.
    pub(super) silent: bool,
    /// Its XDP program.
    pub(super) xdp: Option<u32>,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, KernelError> {
        let what = || "open a netlink socket".to_owned();
        let (connection, handle, _) = rtnetlink::new_connection().context(what)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All links of the namespace with their addresses, by name.
    pub(super) async fn links(&self) -> Result<BTreeMap<String, RawLink>, KernelError> {
        let mut links: BTreeMap<u32, RawLink> = BTreeMap::new();
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let listed = dump(all, |entry| {
            if let RouteNetlinkMessage::NewLink(message) = entry {
                links.insert(message.header.index, raw_link(&message));
            }
        });
        listed.await.context(|| "list the links".to_owned())?;
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let listed = dump(all, |entry| {
            let RouteNetlinkMessage::NewAddress(message) = entry else { return };
            if let (Some(link), Some(address)) =
                (links.get_mut(&message.header.index), address(&message))
            {
                link.link.addresses.push(address);
            }
        });
        listed.await.context(|| "list the addresses".to_owned())?;
        Ok(links.into_values().map(|link| (link.link.name.clone(), link)).collect())
    }

    /// Index of a link that must be there.
    pub(super) fn index(name: &str) -> Result<u32, KernelError> {
        nix::net::if_::if_nametoindex(name).context(|| format!("find the interface {name}"))
    }

    pub(super) async fn remove_link(&self, name: &str) -> Result<(), KernelError> {
        let Ok(index) = Self::index(name) else { return Ok(()) };
        let result = self.handle.link().del(index).execute().await;
        unless(result, &[libc::ENODEV]).context(|| format!("remove the interface {name}"))
    }

    pub(super) async fn set_aggregates(
        &self,
        interface: &str,
        aggregates: &Aggregates,
    ) -> Result<(), KernelError> {
        let index = Self::index(interface)?;
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::GsoMaxSize(aggregates.gso))
            .append_extra_attribute(LinkAttribute::GroMaxSize(aggregates.gro))
            .append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(aggregates.gso_ipv4))
            .append_extra_attribute(LinkAttribute::GroIpv4MaxSize(aggregates.gro_ipv4));
        let result = self.handle.link().set(message.build()).execute().await;
        result.context(|| format!("set the largest packets of {interface}"))
    }

    pub(super) async fn add_host_address(&self, address: IpNet) -> Result<(), KernelError> {
        let index = Self::index(HOST_DEVICE)?;
        let mut request =
            self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if matches!(address, IpNet::V6(_)) {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.context(|| format!("add {address} to {HOST_DEVICE}"))
    }

    pub(super) async fn remove_host_address(&self, address: IpNet) -> Result<(), KernelError> {
        let Ok(index) = Self::index(HOST_DEVICE) else { return Ok(()) };
        self.remove_address(index, address).await
    }

    pub(super) async fn remove_address(
        &self,
        index: u32,
        address: IpNet,
    ) -> Result<(), KernelError> {
        let message = match address {
            IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
        };
        let result = self.handle.address().del(message).execute().await;
        unless(result, &[libc::EADDRNOTAVAIL, libc::ENODEV])
            .context(|| format!("remove the address {address}"))
    }
}

/// The links as the rest of the agent sees them.
pub(super) fn interfaces(links: &BTreeMap<String, RawLink>) -> BTreeMap<String, Link> {
    links.iter().map(|(name, raw)| (name.clone(), raw.link.clone())).collect()
}

/// Addresses on the host device.
pub(super) fn host_addresses(interfaces: &BTreeMap<String, Link>) -> BTreeSet<IpNet> {
    interfaces
        .get(HOST_DEVICE)
        .map(|link| link.addresses.iter().copied().collect())
        .unwrap_or_default()
}

/// Success for errors that say that there is nothing to do.
pub(super) fn unless(
    result: Result<(), rtnetlink::Error>,
    harmless: &[i32],
) -> Result<(), rtnetlink::Error> {
    match errno(&result) {
        Some(errno) if harmless.contains(&errno) => Ok(()),
        Some(_) | None => result,
    }
}

/// The kernel's error number of a failed request.
pub(super) fn errno<T>(result: &Result<T, rtnetlink::Error>) -> Option<i32> {
    if let Err(rtnetlink::Error::NetlinkError(message)) = result {
        Some(message.raw_code().saturating_neg())
    } else {
        None
    }
}

/// The error of a link that was there a moment ago.
pub(super) fn vanished(name: &str) -> KernelError {
    refusal(format!("set up {name}"), "somebody removed it meanwhile")
}

fn raw_link(message: &LinkMessage) -> RawLink {
    let mut raw = RawLink {
        link: Link {
            name: String::new(),
            alias: String::new(),
            ifindex: message.header.index,
            mac: Mac::default(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            unused: false,
            medium: medium(message),
            aggregates: Aggregates::default(),
            aggregates_max: LEGACY_MAX,
            addresses: Vec::new(),
        },
        flags: message.header.flags,
        kind: None,
        vxlan: Vec::new(),
        peer: None,
        silent: true,
        xdp: None,
    };
    let mut is_elsewhere = false;
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "a link has a hundred attributes")]
        match attribute {
            LinkAttribute::IfName(name) => raw.link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => raw.link.alias.clone_from(alias),
            LinkAttribute::Mtu(mtu) => raw.link.mtu = *mtu,
            LinkAttribute::CarrierUpCount(times) => raw.link.unused = *times == 0,
            LinkAttribute::Address(bytes) => {
                raw.link.mac = bytes.as_slice().try_into().map(Mac::new).unwrap_or_default();
            }
            LinkAttribute::GsoMaxSize(size) => raw.link.aggregates.gso = *size,
            LinkAttribute::GroMaxSize(size) => raw.link.aggregates.gro = *size,
            LinkAttribute::GsoIpv4MaxSize(size) => raw.link.aggregates.gso_ipv4 = *size,
            LinkAttribute::GroIpv4MaxSize(size) => raw.link.aggregates.gro_ipv4 = *size,
            LinkAttribute::TsoMaxSize(size) => raw.link.aggregates_max = *size,
            LinkAttribute::Link(index) => raw.peer = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => link_info(&mut raw, infos),
            LinkAttribute::AfSpecUnspec(specs) => raw.silent = is_silent(specs),
            LinkAttribute::Xdp(infos) => {
                let id =
                    |info: &LinkXdp| if let LinkXdp::ProgId(id) = info { Some(*id) } else { None };
                raw.xdp = infos.iter().find_map(id);
            }
            _ => {}
        }
    }
    if is_elsewhere {
        raw.peer = None;
    }
    raw
}

fn medium(message: &LinkMessage) -> Medium {
    let is_dummy = message.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos)
            if infos.contains(&LinkInfo::Kind(InfoKind::Dummy)))
    });
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel knows sixty of them")]
    match message.header.link_layer_type {
        _ if is_dummy => Medium::Nothing,
        LinkLayerType::Loopback => Medium::Nothing,
        LinkLayerType::Ether => Medium::Ethernet,
        _ => Medium::Bare,
    }
}

fn link_info(raw: &mut RawLink, infos: &[LinkInfo]) {
    for info in infos {
        if let LinkInfo::Kind(kind) = info {
            raw.kind = Some(kind.clone());
        } else if let LinkInfo::Data(InfoData::Vxlan(data)) = info {
            raw.vxlan.clone_from(data);
        }
    }
}

/// Also where IPv6 is off: then the link has no such part.
fn is_silent(specs: &[AfSpecUnspec]) -> bool {
    !specs.iter().any(|spec| {
        matches!(spec, AfSpecUnspec::Inet6(inet6)
            if !inet6.contains(&AfSpecInet6::AddrGenMode(In6AddrGenMode::None)))
    })
}

/// The local address: on point-to-point links `Address` is that of the other end.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let mut found: Option<IpAddr> = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            found = Some(*ip);
        } else if let (AddressAttribute::Address(ip), None) = (attribute, found) {
            found = Some(*ip);
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}
