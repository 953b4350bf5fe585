//! The two devices that the agent makes.

use std::collections::BTreeMap;

use dataplane_core::abi::config::TUNNEL_MAC;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan,
    LinkAttribute, LinkFlags,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use super::error::{Context as _, refusal};
use super::netlink::{Netlink, RawLink, errno, vanished};
use crate::kernel::{Device, HOST_DEVICE, HOST_DEVICE_PEER, KernelError, TUNNEL_DEVICE};

/// Our devices. One that is not as [`put`] makes it has MTU 0, which nobody wants.
pub(super) fn observe(links: &BTreeMap<String, RawLink>) -> BTreeMap<String, Device> {
    let mut devices = BTreeMap::new();
    if let Some(host) = links.get(HOST_DEVICE) {
        let peer = links.get(HOST_DEVICE_PEER);
        let is_right = is_pair(host, peer)
            && is_set(host)
            && peer.is_some_and(|peer| {
                is_set(peer) && peer.link.mtu == host.link.mtu && peer.link.addresses.is_empty()
            });
        let mtu = if is_right { host.link.mtu } else { 0 };
        devices.insert(HOST_DEVICE.to_owned(), Device::Host { mtu });
    } else if links.contains_key(HOST_DEVICE_PEER) {
        devices.insert(HOST_DEVICE.to_owned(), Device::Host { mtu: 0 });
    }
    if let Some(tunnel) = links.get(TUNNEL_DEVICE) {
        let port = port(tunnel);
        let is_right = is_tunnel(tunnel, port)
            && tunnel.link.up
            && tunnel.silent
            && tunnel.link.mac == TUNNEL_MAC
            && tunnel.link.addresses.is_empty();
        let mtu = if is_right { tunnel.link.mtu } else { 0 };
        devices.insert(TUNNEL_DEVICE.to_owned(), Device::Tunnel { port, mtu });
    }
    devices
}

/// Makes the device, or changes what can be changed, or replaces it.
pub(super) async fn put(netlink: &Netlink, name: &str, device: &Device) -> Result<(), KernelError> {
    let links = netlink.links().await?;
    match device {
        Device::Host { mtu } => {
            let peer_name = format!("{name}p");
            let peer = links.get(&peer_name);
            if !links.get(name).is_some_and(|host| is_pair(host, peer)) {
                netlink.remove_link(name).await?;
                netlink.remove_link(&peer_name).await?;
                create_host(netlink, name, &peer_name).await?;
            }
            configure(netlink, name, *mtu, false).await?;
            configure(netlink, &peer_name, *mtu, true).await?;
            up(netlink, name).await?;
            up(netlink, &peer_name).await
        }
        Device::Tunnel { port, mtu } => {
            if !links.get(name).is_some_and(|tunnel| is_tunnel(tunnel, *port)) {
                netlink.remove_link(name).await?;
                create_tunnel(netlink, name, *port).await?;
            }
            configure(netlink, name, *mtu, true).await?;
            let index = Netlink::index(name)?;
            let mac = LinkUnspec::new_with_index(index).address(TUNNEL_MAC.octets.to_vec());
            let result = netlink.handle.link().set(mac.build()).execute().await;
            result.context(|| format!("set the address of {name}"))?;
            up(netlink, name).await
        }
    }
}

fn is_pair(host: &RawLink, peer: Option<&RawLink>) -> bool {
    host.kind == Some(InfoKind::Veth)
        && peer.is_some_and(|peer| {
            host.peer == Some(peer.link.ifindex) && peer.peer == Some(host.link.ifindex)
        })
}

fn is_set(end: &RawLink) -> bool {
    end.link.up && end.silent && end.flags.contains(LinkFlags::Noarp)
}

fn is_tunnel(tunnel: &RawLink, wanted: u16) -> bool {
    tunnel.kind == Some(InfoKind::Vxlan)
        && tunnel.vxlan.contains(&InfoVxlan::CollectMetadata(true))
        && tunnel.vxlan.contains(&InfoVxlan::Learning(false))
        && port(tunnel) == wanted
}

/// UDP port of a VXLAN device; 0 of others.
pub(super) fn port(tunnel: &RawLink) -> u16 {
    let mut ports = tunnel
        .vxlan
        .iter()
        .filter_map(|info| if let InfoVxlan::Port(port) = info { Some(*port) } else { None });
    ports.next_back().unwrap_or(0)
}

async fn create_host(netlink: &Netlink, name: &str, peer: &str) -> Result<(), KernelError> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(peer).arp(false).build();
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .arp(false)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let result = netlink.handle.link().add(message).execute().await;
    result.context(|| format!("make the veth pair {name}"))
}

async fn create_tunnel(netlink: &Netlink, name: &str, port: u16) -> Result<(), KernelError> {
    let message = LinkMessageBuilder::<LinkVxlan>::new(name)
        .collect_metadata(true)
        .learning(false)
        .port(port)
        .address(TUNNEL_MAC.octets.to_vec())
        .build();
    let result = netlink.handle.link().add(message).execute().await;
    if errno(&result) == Some(libc::EEXIST) {
        return Err(refusal(
            format!("make the VXLAN device {name}"),
            format!(
                "another VXLAN device has UDP port {port}: find it with `ip -d link show type \
                 vxlan` and remove it, or choose another port with --vxlan-port on all nodes"
            ),
        ));
    }
    result.context(|| format!("make the VXLAN device {name}"))
}

/// All but "up": a link-local address would be made at that moment.
async fn configure(
    netlink: &Netlink,
    name: &str,
    mtu: u32,
    is_bare: bool,
) -> Result<(), KernelError> {
    let what = || format!("set up {name}");
    let links = netlink.links().await?;
    let raw = links.get(name).ok_or_else(|| vanished(name))?;
    let index = raw.link.ifindex;
    let silent = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let mut message = LinkUnspec::new_with_index(index).mtu(mtu);
    if raw.kind == Some(InfoKind::Veth) {
        message = message.arp(false);
    }
    netlink.handle.link().set(message.build()).execute().await.context(what)?;
    // Alone: where IPv6 is off, the kernel does not know the attribute, and nothing has to be done.
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![silent])]),
    );
    let result = netlink.handle.link().set(message.build()).execute().await;
    if errno(&result) != Some(libc::EAFNOSUPPORT) {
        result.context(|| format!("switch off link-local addresses of {name}"))?;
    }
    if is_bare {
        for address in &raw.link.addresses {
            netlink.remove_address(index, *address).await?;
        }
    }
    Ok(())
}

async fn up(netlink: &Netlink, name: &str) -> Result<(), KernelError> {
    let message = LinkUnspec::new_with_index(Netlink::index(name)?).up().build();
    let result = netlink.handle.link().set(message).execute().await;
    if errno(&result) == Some(libc::EADDRINUSE) {
        return Err(refusal(
            format!("set {name} up"),
            "another program has its UDP port: find it with `ss -ulnp`, or choose another port \
             with --vxlan-port on all nodes",
        ));
    }
    result.context(|| format!("set {name} up"))
}
