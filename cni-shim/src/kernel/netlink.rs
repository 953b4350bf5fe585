//! Links, addresses, routes and neighbours of one namespace.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dataplane_core::abi::config::GATEWAY_MAC;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::Container;
use super::link::{LinkFacts, ShownLink};
use super::route::Way;
use super::socket::{Ask, Talk, errno};
use crate::error::{Context as _, KERNEL, failure};
use crate::fault;
use crate::names::BigTcp;
use crate::protocol::Failure;
use crate::result::{Route, gateway};

/// Queues of a veth, each way. The kernel's default is one for each processor: memory for each pod, and a
/// choice for each packet, of which nothing comes without a queueing discipline.
const QUEUES: u32 = 1;

/// The kernel looks at the states of links once per second at least.
const OPERATIONAL_TIME_MAX: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_micros(200);

/// The loopback interface, in every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// A netlink socket of the namespace in which it was opened.
pub(crate) struct Netlink {
    talk: Talk,
}

/// The names of both ends of a veth that is to be made.
pub(crate) struct Ends<'a> {
    pub(crate) host: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) container: &'a Container,
}

/// What came of making a veth.
#[derive(Debug)]
pub(crate) enum Made {
    Pair(Pair),
    /// One of the names is taken; nothing was made.
    Exists,
}

/// Both ends of a new veth.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) host_ifindex: u32,
    /// In the container's namespace.
    pub(crate) pod_ifindex: u32,
    pub(crate) host_mac: [u8; 6],
    pub(crate) pod_mac: [u8; 6],
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Failure> {
        let talk = Talk::open().context(KERNEL, || "open a netlink socket".to_owned())?;
        Ok(Self { talk })
    }

    /// The namespace of the socket.
    pub(super) fn namespace(&self) -> io::Result<File> {
        self.talk.namespace()
    }

    pub(super) fn ask(
        &self,
        message: RouteNetlinkMessage,
        ask: Ask,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.talk.ask(message, ask)
    }

    /// An interface by name; none if it is not there.
    pub(crate) fn link(&self, name: &str) -> Result<Option<LinkFacts>, Failure> {
        let mut query = named(name);
        query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.talk.ask(RouteNetlinkMessage::GetLink(query), Ask::Get) {
            Ok(shown) => Ok(shown.into_iter().find_map(|ShownLink(facts)| facts)),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error).context(KERNEL, || format!("look for the interface {name}")),
        }
    }

    /// Makes the veth, its other end in the container, both down.
    pub(crate) fn make_pair(
        &self,
        ends: &Ends<'_>,
        mac: Option<[u8; 6]>,
        big_tcp: BigTcp,
    ) -> Result<Made, Failure> {
        let Ends { host, pod, container } = ends;
        let what = || format!("make the veth {host}");
        // A local address of our own choice, so that the answer needs no second look: the kernel's
        // random one would be as good.
        let pod_mac = match mac {
            Some(mac) => mac,
            None => random_mac().context(KERNEL, what)?,
        };
        let host_mac = GATEWAY_MAC.octets;
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(*pod)
            .address(pod_mac.to_vec())
            .setns_by_fd(container.as_raw_fd())
            .build();
        peer.attributes.extend(of_both_ends(big_tcp));
        let mut message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(*host)
            .address(host_mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        message.attributes.extend(of_both_ends(big_tcp));
        let shown = match self.talk.ask(RouteNetlinkMessage::NewLink(message), Ask::CreateAndShow) {
            Err(error) if errno(&error) == Some(Errno::EEXIST) => return Ok(Made::Exists),
            result => result.context(KERNEL, what)?,
        };
        let ends = shown.into_iter().find_map(|ShownLink(host)| Some((host?.ifindex, host?.peer?)));
        match ends {
            Some((host_ifindex, pod_ifindex)) => {
                Ok(Made::Pair(Pair { host_ifindex, pod_ifindex, host_mac, pod_mac }))
            }
            None => {
                self.remove(host)?;
                Err(failure(KERNEL, what(), "the kernel did not show what it made"))
            }
        }
    }

    /// Tells people what the host end is, and keeps it from speaking IPv6 itself.
    ///
    /// The alias comes second because the kernel ignores it while it makes a link.
    pub(crate) fn name_host_end(
        &self,
        name: &str,
        pair: &Pair,
        alias: &str,
    ) -> Result<(), Failure> {
        // The kernel takes 255 bytes (`IFALIASZ`, with the NUL).
        let mut end = alias.len().min(255);
        while !alias.is_char_boundary(end) {
            end -= 1;
        }
        let message = LinkUnspec::new_with_index(pair.host_ifindex).alias(&alias[..end]).build();
        self.set_link(message).context(KERNEL, || format!("set the alias of {name}"))?;
        set_ipv6(name, "disable_ipv6", "1")
    }

    /// Sets MTU and "up" of the host end: from now on packets pass.
    pub(crate) fn host_end_up(&self, pair: &Pair, mtu: u32) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(pair.host_ifindex).mtu(mtu).up().build();
        self.set_link(message).context(KERNEL, || "set the host end up".into())
    }

    fn set_link(&self, message: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::SetLink(message), Ask::Set).map(drop)
    }

    /// Waits until the container's end sends. The kernel notices later that the host end is up, and drops
    /// without a trace what the container sends before; from 6.8 on, to ask is to make it notice.
    pub(crate) fn wait_until_operational(&self, ifname: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + OPERATIONAL_TIME_MAX;
        while !self.link(ifname)?.ok_or_else(|| vanished(ifname))?.operational
            && Instant::now() < deadline
        {
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits until the container's IPv6 addresses are its own. The kernel leaves that to a worker, also
    /// without duplicate address detection (`addrconf_dad_start`, as of 6.18), and drops what arrives before.
    pub(crate) fn wait_until_local(&self, addresses: &[IpAddr]) -> Result<(), Failure> {
        let deadline = Instant::now() + OPERATIONAL_TIME_MAX;
        let wanted: Vec<IpAddr> = addresses.iter().copied().filter(IpAddr::is_ipv6).collect();
        while !wanted.is_empty() && Instant::now() < deadline {
            let local = self.local_ipv6()?;
            if wanted.iter().all(|ip| local.contains(ip)) {
                break;
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Removes an interface; false if there is none.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Failure> {
        match self.ask(RouteNetlinkMessage::DelLink(named(name)), Ask::Set) {
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(false),
            result => {
                result.map(|_| true).context(KERNEL, || format!("remove the interface {name}"))
            }
        }
    }

    /// Configures the container's end: loopback, addresses, gateway, routes. Returns the routes that the
    /// container has now: all, but for those that it had by another interface.
    pub(crate) fn configure_pod(
        &self,
        ifname: &str,
        pair: &Pair,
        addresses: &[IpAddr],
        routes: &[Route],
        mtu: u32,
    ) -> Result<Vec<Route>, Failure> {
        let what = |step: &str| format!("{step} of {ifname} in the container");
        self.set_link(LinkUnspec::new_with_index(LOOPBACK).up().build())
            .context(KERNEL, || "set lo up in the container".into())?;
        fault::done(fault::LOOPBACK);
        let index = pair.pod_ifindex;
        if addresses.iter().any(IpAddr::is_ipv6) {
            // The routes are ours: a router advertisement must not change them.
            set_ipv6(ifname, "accept_ra", "0")?;
        }
        for ip in addresses {
            let add =
                || self.ask(RouteNetlinkMessage::NewAddress(address(index, *ip)), Ask::Create);
            let mut added = add();
            let refusal = added.as_ref().err().and_then(errno);
            if ip.is_ipv6() && matches!(refusal, Some(Errno::EACCES | Errno::EOPNOTSUPP)) {
                // Hosts and images switch it off for new interfaces, where the kernel then takes no address
                // (`addrconf_add_dev`); or the kernel has none.
                enable_ipv6(&ipv6_switch(ifname, "disable_ipv6"))?;
                added = add();
            }
            added.context(KERNEL, || what("set the address"))?;
        }
        fault::done(fault::ADDRESSES);
        self.set_link(LinkUnspec::new_with_index(index).mtu(mtu).up().build())
            .context(KERNEL, || what("set MTU and state"))?;
        fault::done(fault::POD_UP);
        let gateways: BTreeSet<IpAddr> = addresses.iter().map(|ip| gateway(*ip)).collect();
        for gateway in gateways {
            let message = neighbour(index, gateway);
            self.ask(RouteNetlinkMessage::NewNeighbour(message), Ask::Replace)
                .context(KERNEL, || what("set the gateway's MAC"))?;
        }
        let held = self.add_routes(Way { ifname, index, addresses }, routes)?;
        fault::done(fault::ROUTES);
        Ok(held)
    }
}

/// What both ends of a veth are made with.
fn of_both_ends(big_tcp: BigTcp) -> Vec<LinkAttribute> {
    let mut attributes =
        vec![LinkAttribute::NumTxQueues(QUEUES), LinkAttribute::NumRxQueues(QUEUES)];
    if let Some(size) = big_tcp.ipv6 {
        attributes.extend([LinkAttribute::GsoMaxSize(size), LinkAttribute::GroMaxSize(size)]);
    }
    if let Some(size) = big_tcp.ipv4 {
        attributes
            .extend([LinkAttribute::GsoIpv4MaxSize(size), LinkAttribute::GroIpv4MaxSize(size)]);
    }
    attributes
}

/// A message that speaks of an interface by its name.
fn named(name: &str) -> LinkMessage {
    LinkMessageBuilder::<LinkUnspec>::new().name(name).build()
}

/// A single address, which is not looked for on the link first.
fn address(index: u32, ip: IpAddr) -> AddressMessage {
    match ip {
        IpAddr::V4(ip) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(ip, 32).build()
        }
        IpAddr::V6(ip) => {
            let builder = AddressMessageBuilder::<Ipv6Addr>::new().index(index);
            let mut message = builder.address(ip, 128).build();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
        }
    }
}

/// The permanent entry of a gateway.
fn neighbour(index: u32, gateway: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, address) = match gateway {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(GATEWAY_MAC.octets.to_vec()));
    message
}

/// Sets a switch of an interface; a kernel without IPv6 has none.
fn set_ipv6(ifname: &str, switch: &str, value: &str) -> Result<(), Failure> {
    let path = ipv6_switch(ifname, switch);
    match write_switch(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(KERNEL, || format!("write {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// It is there, or the kernel does not have it: nothing is created, for which the directory would be locked.
fn write_switch(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

/// The kernel shows the namespace of the thread that opens the file.
fn ipv6_switch(ifname: &str, switch: &str) -> PathBuf {
    ["/proc/sys/net/ipv6/conf", ifname, switch].iter().collect()
}

fn enable_ipv6(switch: &Path) -> Result<(), Failure> {
    match write_switch(switch, "0") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(failure(
            KERNEL,
            "the pod is to have an IPv6 address, and the kernel runs without IPv6",
            format!(
                "{} is missing: start the kernel without ipv6.disable=1, or give the node IPv4 pod \
                 networks only",
                switch.display()
            ),
        )),
        result => result.context(KERNEL, || format!("write {}", switch.display())),
    }
}

fn vanished(name: &str) -> Failure {
    failure(KERNEL, format!("the interface {name} vanished"), "somebody removed it meanwhile")
}

/// A random unicast, locally administered MAC.
fn random_mac() -> Result<[u8; 6], getrandom::Error> {
    let mut mac = [0; 6];
    getrandom::fill(&mut mac)?;
    mac[0] = (mac[0] & 0xfe) | 0x02;
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_is_named() {
        let error = enable_ipv6(Path::new("/nonexistent/eth0/disable_ipv6")).expect_err("missing");
        assert_eq!(error.code, KERNEL);
        assert!(error.message.contains("without IPv6"), "{error}");
        assert!(error.details.contains("ipv6.disable=1"), "{error}");
    }
}
