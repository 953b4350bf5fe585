//! Links, addresses, routes and neighbours of one namespace.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's lists of attributes grow with the kernel"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dataplane_core::abi::config::GATEWAY_MAC;
use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, State,
};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::runtime::Runtime;

use super::route::Way;
use crate::error::{ALREADY_ATTACHED, Context as _, KERNEL, failure};
use crate::fault;
use crate::protocol::Failure;
use crate::result::{Route, gateway};

/// Queues of a veth, each way. The kernel's default is one for each processor: memory for each pod, and a
/// choice for each packet, of which nothing comes without a queueing discipline.
const QUEUES: u32 = 1;

/// The kernel looks at the states of links once per second at least.
const OPERATIONAL_TIME_MAX: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(1);

/// A netlink socket of the namespace in which it was opened.
pub(crate) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

/// An interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkFacts {
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Whether the kernel sends by it: it is up and so is the other end.
    pub(crate) operational: bool,
}

/// Both ends of a new veth.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) host_ifindex: u32,
    pub(crate) host_mac: [u8; 6],
    pub(crate) pod_mac: [u8; 6],
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Failure> {
        let what = || "open a netlink socket".to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context(KERNEL, what)?;
        let guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().context(KERNEL, what)?;
        drop(guard);
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// An interface by name; none if it is not there.
    pub(crate) fn link(&self, name: &str) -> Result<Option<LinkFacts>, Failure> {
        let request = self.handle.link().get().match_name(name.to_owned());
        let found = self.wait(async {
            let stream = request.execute();
            futures_util::pin_mut!(stream);
            stream.try_next().await
        });
        match found {
            Ok(message) => Ok(message.as_ref().map(facts)),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error).context(KERNEL, || format!("look for the interface {name}")),
        }
    }

    /// Makes the veth, its other end in the container, both down.
    pub(crate) fn make_pair(
        &self,
        host: &str,
        pod: &str,
        netns: &File,
        mac: Option<[u8; 6]>,
    ) -> Result<Pair, Failure> {
        let what = || format!("make the veth {host}");
        // A local address of our own choice, so that the answer needs no second look: the kernel's
        // random one would be as good.
        let pod_mac = match mac {
            Some(mac) => mac,
            None => random_mac().context(KERNEL, what)?,
        };
        let host_mac = GATEWAY_MAC.octets;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pod)
            .address(pod_mac.to_vec())
            .setns_by_fd(netns.as_raw_fd())
            .append_extra_attribute(LinkAttribute::NumTxQueues(QUEUES))
            .append_extra_attribute(LinkAttribute::NumRxQueues(QUEUES))
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(host)
            .address(host_mac.to_vec())
            .append_extra_attribute(LinkAttribute::NumTxQueues(QUEUES))
            .append_extra_attribute(LinkAttribute::NumRxQueues(QUEUES))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        match self.wait(self.handle.link().add(message).execute()) {
            Err(error) if errno(&error) == Some(Errno::EEXIST) => Err(failure(
                ALREADY_ATTACHED,
                what(),
                format!("{host} or {pod} is there: DEL first"),
            )),
            result => result.context(KERNEL, what),
        }?;
        let link = self.link(host)?.ok_or_else(|| vanished(host))?;
        Ok(Pair { host_ifindex: link.ifindex, host_mac, pod_mac })
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
        self.wait(self.handle.link().set(message).execute())
            .context(KERNEL, || format!("set the alias of {name}"))?;
        set_ipv6(name, "disable_ipv6", "1")
    }

    /// Sets MTU and "up" of the host end: from now on packets pass.
    pub(crate) fn host_end_up(&self, pair: &Pair, mtu: u32) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(pair.host_ifindex).mtu(mtu).up().build();
        self.wait(self.handle.link().set(message).execute())
            .context(KERNEL, || "set the host end up".into())
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
        let Some(link) = self.link(name)? else { return Ok(false) };
        match self.wait(self.handle.link().del(link.ifindex).execute()) {
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(true),
            result => {
                result.map(|()| true).context(KERNEL, || format!("remove the interface {name}"))
            }
        }
    }

    /// Configures the container's end: loopback, addresses, gateway, routes. Returns the routes that the
    /// container has now: all, but for those that it had by another interface.
    pub(crate) fn configure_pod(
        &self,
        ifname: &str,
        addresses: &[IpAddr],
        routes: &[Route],
        mtu: u32,
    ) -> Result<Vec<Route>, Failure> {
        let what = |step: &str| format!("{step} of {ifname} in the container");
        if let Some(lo) = self.link("lo")? {
            let message = LinkUnspec::new_with_index(lo.ifindex).up().build();
            self.wait(self.handle.link().set(message).execute())
                .context(KERNEL, || "set lo up in the container".into())?;
        }
        fault::done(fault::LOOPBACK);
        let index = self.link(ifname)?.ok_or_else(|| vanished(ifname))?.ifindex;
        if addresses.iter().any(IpAddr::is_ipv6) {
            // Hosts and images switch it off for new interfaces, where the kernel then takes no address.
            enable_ipv6(&ipv6_switch(ifname, "disable_ipv6"))?;
            // The routes are ours: a router advertisement must not change them.
            set_ipv6(ifname, "accept_ra", "0")?;
        }
        for ip in addresses {
            let prefix = if ip.is_ipv4() { 32 } else { 128 };
            let mut request = self.handle.address().add(index, *ip, prefix);
            if ip.is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            self.wait(request.execute()).context(KERNEL, || what("set the address"))?;
        }
        fault::done(fault::ADDRESSES);
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        self.wait(self.handle.link().set(message).execute())
            .context(KERNEL, || what("set MTU and state"))?;
        fault::done(fault::POD_UP);
        let gateways: BTreeSet<IpAddr> = addresses.iter().map(|ip| gateway(*ip)).collect();
        for gateway in gateways {
            let neighbour = self.handle.neighbours().add(index, gateway);
            let neighbour = neighbour
                .state(NeighbourState::Permanent)
                .link_layer_address(&GATEWAY_MAC.octets)
                .replace();
            self.wait(neighbour.execute()).context(KERNEL, || what("set the gateway's MAC"))?;
        }
        let held = self.add_routes(Way { ifname, index, addresses }, routes)?;
        fault::done(fault::ROUTES);
        Ok(held)
    }
}

/// Sets a switch of an interface; a kernel without IPv6 has none.
fn set_ipv6(ifname: &str, switch: &str, value: &str) -> Result<(), Failure> {
    let path = ipv6_switch(ifname, switch);
    match std::fs::write(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(KERNEL, || format!("write {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The kernel shows the namespace of the thread that opens the file.
fn ipv6_switch(ifname: &str, switch: &str) -> PathBuf {
    ["/proc/sys/net/ipv6/conf", ifname, switch].iter().collect()
}

fn enable_ipv6(switch: &Path) -> Result<(), Failure> {
    match std::fs::write(switch, "0") {
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

fn facts(message: &LinkMessage) -> LinkFacts {
    let mut facts = LinkFacts {
        ifindex: message.header.index,
        mac: [0; 6],
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        operational: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => {
                facts.mac = mac.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
            LinkAttribute::OperState(state) => facts.operational = *state == State::Up,
            _ => {}
        }
    }
    facts
}

pub(super) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.code.map(|code| Errno::from_raw(code.get().wrapping_neg()))
        }
        _ => None,
    }
}

fn vanished(name: &str) -> Failure {
    failure(KERNEL, format!("the interface {name} vanished"), "somebody removed it meanwhile")
}

/// A random unicast, locally administered MAC.
fn random_mac() -> std::io::Result<[u8; 6]> {
    use std::io::Read as _;
    let mut mac = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut mac)?;
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
