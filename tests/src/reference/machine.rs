//! Machines on which a plugin of the CNI project connects the pods, and the two usual ways from one to the other:
//! routes (flannel's `host-gw`), and a VXLAN device with static entries (flannel's `vxlan`).

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Pair, lan_addresses, mac_of, plug};
use crate::command;
use crate::fabric::Fabric;
use crate::namespace::Namespace;
use crate::run::Run;

/// Where distributions put the plugins of the CNI project.
const PLUGINS: &str = "/usr/lib/cni";
const MTU: u32 = 1500;
/// Outer IPv4, UDP and VXLAN headers and the inner Ethernet header (RFC 7348).
const VXLAN_OVERHEAD: u32 = 50;
const VXLAN: &str = "flannel.1";

/// A plugin, and how its machines reach each other's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bridge` and routes.
    Bridge,
    /// `ptp` and routes.
    Ptp,
    /// `bridge` and VXLAN.
    BridgeVxlan,
    /// The same without checksums in outer UDP headers over IPv4.
    BridgeVxlanUnchecked,
}

impl Kind {
    fn plugin(self) -> &'static str {
        match self {
            Self::Bridge | Self::BridgeVxlan | Self::BridgeVxlanUnchecked => "bridge",
            Self::Ptp => "ptp",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Ptp => "ptp",
            Self::BridgeVxlan => "flannel",
            Self::BridgeVxlanUnchecked => "unchecked",
        }
    }

    /// Tells the networks of one kind from those of others.
    fn number(self) -> u8 {
        match self {
            Self::Bridge => 1,
            Self::Ptp => 2,
            Self::BridgeVxlan => 3,
            Self::BridgeVxlanUnchecked => 4,
        }
    }

    fn mtu(self) -> u32 {
        match self {
            Self::Bridge | Self::Ptp => MTU,
            Self::BridgeVxlan | Self::BridgeVxlanUnchecked => MTU - VXLAN_OVERHEAD,
        }
    }
}

/// One of two machines.
#[derive(Debug)]
pub struct Machine {
    /// Its network.
    pub namespace: Namespace,
    /// Its addresses on the LAN, IPv4 first.
    pub addresses: [IpAddr; 2],
    kind: Kind,
    /// 1 or 2.
    number: u8,
    run: String,
    is_kept: bool,
}

/// A pod on it.
#[derive(Clone, Debug)]
pub struct ReferencePod {
    /// Its network.
    pub namespace: Namespace,
    /// Its addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
}

/// Two machines of a kind that know each other's pods.
///
/// # Errors
/// When something cannot be made.
pub fn machines(run: &Run, fabric: &Fabric, kind: Kind) -> Result<[Machine; 2]> {
    let machines = [Machine::new(run, fabric, kind, 1)?, Machine::new(run, fabric, kind, 2)?];
    let [one, two] = &machines;
    match kind {
        Kind::Bridge | Kind::Ptp => {
            one.route_to(two)?;
            two.route_to(one)?;
        }
        Kind::BridgeVxlan | Kind::BridgeVxlanUnchecked => {
            one.add_tunnel()?;
            two.add_tunnel()?;
            one.tunnel_to(two)?;
            two.tunnel_to(one)?;
        }
    }
    Ok(machines)
}

/// A pod on each of two machines of a kind.
///
/// # Errors
/// When something cannot be made.
pub fn pair(run: &Run, fabric: &Fabric, kind: Kind) -> Result<Pair> {
    let machines = machines(run, fabric, kind)?;
    let [client, server] = [machines[0].pod(1)?, machines[1].pod(1)?];
    let machines = machines.into_iter().map(|machine| machine.namespace).collect();
    let (addresses, server) = (server.addresses, server.namespace);
    Ok(Pair { client: client.namespace, server, addresses, machines })
}

impl Machine {
    fn new(run: &Run, fabric: &Fabric, kind: Kind, number: u8) -> Result<Self> {
        let host = 20 + 2 * kind.number() + number;
        let namespace = plug(run, fabric, &format!("{}{number}", kind.name()), host)?;
        namespace.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        let machine = Self {
            namespace,
            addresses: lan_addresses(host),
            kind,
            number,
            run: run.name().to_owned(),
            is_kept: run.is_kept(),
        };
        machine.masquerade()?;
        Ok(machine)
    }

    /// Makes a pod.
    ///
    /// # Errors
    /// When the plugin fails.
    pub fn pod(&self, number: u8) -> Result<ReferencePod> {
        let name = format!("{}-{}{}-pod{number}", self.run, self.kind.name(), self.number);
        let namespace = Namespace::new(&name, self.is_kept)?;
        let addresses = self.pod_addresses(number);
        let address = |(address, gateway): (IpAddr, IpAddr)| {
            let length = if address.is_ipv4() { 24 } else { 64 };
            json!({ "address": format!("{address}/{length}"), "gateway": gateway })
        };
        let both: Vec<_> = addresses.into_iter().zip(self.pod_addresses(0)).map(address).collect();
        let configuration = json!({
            "cniVersion": "1.0.0", "name": "reference", "type": self.kind.plugin(),
            "bridge": "cni0", "isGateway": true, "mtu": self.kind.mtu(),
            "ipam": {
                "type": "static", "addresses": both,
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        });
        let plugin = Path::new(PLUGINS).join(self.kind.plugin());
        let mut command = self.namespace.command(&plugin.to_string_lossy());
        command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", &name);
        command.env("CNI_NETNS", namespace.path()).env("CNI_IFNAME", "eth0");
        command.env("CNI_PATH", PLUGINS);
        let output = command::feed(&mut command, &configuration.to_string())?;
        command::checked(&command, &output)?;
        Ok(ReferencePod { namespace, addresses })
    }

    /// Addresses of a pod; of the machine itself with number 0.
    fn pod_addresses(&self, number: u8) -> [IpAddr; 2] {
        let (net, machine, host) = (self.kind.number(), self.number, number + 1);
        [
            [10, 100 + net, machine, host].into(),
            [0xfd00, 0x100 + u16::from(net), machine.into(), 0, 0, 0, 0, host.into()].into(),
        ]
    }

    fn pod_networks(&self) -> [String; 2] {
        let (net, machine) = (self.kind.number(), self.number);
        [
            format!("10.{}.{machine}.0/24", 100 + net),
            format!("fd00:{:x}:{machine}::/64", 0x100 + u16::from(net)),
        ]
    }

    /// What leaves the pod networks gets the machine's address.
    fn masquerade(&self) -> Result<()> {
        let net = self.kind.number();
        let (ipv4, ipv6) =
            (format!("10.{}.0.0/16", 100 + net), format!("fd00:{:x}::/32", 0x100 + u16::from(net)));
        let rules = format!(
            "table inet reference {{ chain postrouting {{ type nat hook postrouting priority 100;\n\
             ip saddr {ipv4} ip daddr != {ipv4} masquerade\n\
             ip6 saddr {ipv6} ip6 daddr != {ipv6} masquerade\n}}\n}}\n"
        );
        let mut nft = self.namespace.command("nft");
        nft.args(["-f", "-"]);
        let output = command::feed(&mut nft, &rules)?;
        command::checked(&nft, &output).map(drop)
    }

    fn route_to(&self, other: &Self) -> Result<()> {
        for (network, via) in other.pod_networks().iter().zip(other.addresses) {
            self.namespace.ip(&format!("route add {network} via {via}"))?;
        }
        Ok(())
    }

    fn add_tunnel(&self) -> Result<()> {
        let ([local, _], mtu) = (self.addresses, self.kind.mtu());
        let [ipv4, ipv6] = self.tunnel_addresses();
        let checksums =
            if self.kind == Kind::BridgeVxlanUnchecked { "noudpcsum" } else { "udpcsum" };
        self.namespace.ip(&format!(
            "link add {VXLAN} mtu {mtu} type vxlan id 1 dstport 8472 local {local} dev eth0 nolearning {checksums}\n\
             link set {VXLAN} up\naddress add {ipv4}/32 dev {VXLAN}\naddress add {ipv6}/128 dev {VXLAN}"
        ))
    }

    /// The first addresses of its networks, as flannel has it.
    fn tunnel_addresses(&self) -> [String; 2] {
        self.pod_networks().map(|network| {
            network.split_once('/').map_or_else(|| network.clone(), |(first, _)| first.to_owned())
        })
    }

    fn tunnel_to(&self, other: &Self) -> Result<()> {
        let (mac, node) = (mac_of(&other.namespace, VXLAN)?, other.addresses[0]);
        for (network, via) in other.pod_networks().iter().zip(other.tunnel_addresses()) {
            self.namespace.ip(&format!(
                "neighbour add {via} lladdr {mac} dev {VXLAN} nud permanent\n\
                 route add {network} via {via} dev {VXLAN} onlink"
            ))?;
        }
        let append = format!("bridge fdb append {mac} dev {VXLAN} dst {node}");
        self.namespace.run(&append).context("the node's entry").map(drop)
    }
}
