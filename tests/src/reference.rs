//! What Podwire is compared with: pods and hosts that are connected by other means.

pub mod least;
pub mod machine;

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::fabric::Fabric;
use crate::namespace::Namespace;
use crate::run::Run;

/// Last numbers of the addresses of two hosts on the nodes' LAN.
const HOSTS: [u8; 2] = [21, 22];

/// Two namespaces that measure between themselves.
#[derive(Debug)]
pub struct Pair {
    /// Who asks.
    pub client: Namespace,
    /// Who answers.
    pub server: Namespace,
    /// Those of the server, IPv4 first.
    pub addresses: [IpAddr; 2],
    /// The machines that they are on.
    pub machines: Vec<Namespace>,
}

impl Pair {
    /// Has the client send all that is for a network of IPv6 to the server, whoever has the addresses there.
    ///
    /// # Errors
    /// When a route or a neighbour cannot be made.
    pub fn route(&self, network: &str) -> Result<()> {
        let mac = mac_of(&self.server, "eth0")?;
        self.client.ip(&format!(
            "neighbour replace fe80::99 lladdr {mac} dev eth0 nud permanent\n\
             route replace {network} via fe80::99 dev eth0"
        ))
    }
}

/// Two namespaces and a veth pair, as the kernel makes them.
///
/// # Errors
/// When something cannot be made.
pub fn veth_pair(run: &Run) -> Result<Pair> {
    let client = Namespace::new(&format!("{}-bare1", run.name()), run.is_kept())?;
    let server = Namespace::new(&format!("{}-bare2", run.name()), run.is_kept())?;
    client.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {}\nlink set eth0 up\n\
         address add 10.98.0.1/24 dev eth0\naddress add fd00:98::1/64 dev eth0",
        server.name()
    ))?;
    server.ip("link set eth0 up\naddress add 10.98.0.2/24 dev eth0\n\
         address add fd00:98::2/64 dev eth0")?;
    let addresses = [[10, 98, 0, 2].into(), [0xfd00, 0x98, 0, 0, 0, 0, 0, 2].into()];
    Ok(Pair { client, server, addresses, machines: Vec::new() })
}

/// Two hosts on the nodes' LAN.
///
/// # Errors
/// When something cannot be made.
pub fn hosts(run: &Run, fabric: &Fabric) -> Result<Pair> {
    let [client, server] = HOSTS.map(|host| plug(run, fabric, &format!("host{host}"), host));
    let (client, server) = (client?, server?);
    let machines = vec![client.clone(), server.clone()];
    Ok(Pair { client, server, addresses: lan_addresses(HOSTS[1]), machines })
}

/// A machine on the nodes' LAN, with the router as its gateway.
fn plug(run: &Run, fabric: &Fabric, name: &str, host: u8) -> Result<Namespace> {
    let namespace = Namespace::new(&format!("{}-{name}", run.name()), run.is_kept())?;
    fabric.plug(name, &namespace, 1)?;
    let [ipv4, ipv6] = lan_addresses(host);
    namespace.ip(&format!(
        "address add {ipv4}/24 dev eth0\naddress add {ipv6}/64 dev eth0\n\
         route add default via 192.168.1.1\nroute add default via fd00:1::1"
    ))?;
    Ok(namespace)
}

fn lan_addresses(host: u8) -> [IpAddr; 2] {
    [[192, 168, 1, host].into(), [0xfd00, 1, 0, 0, 0, 0, 0, host.into()].into()]
}

/// MAC of an interface.
fn mac_of(namespace: &Namespace, ifname: &str) -> Result<String> {
    let links = namespace.run(&format!("ip -j link show {ifname}"))?;
    let links: Value = serde_json::from_str(&links)?;
    Ok(links[0]["address"].as_str().context("no address")?.to_owned())
}
