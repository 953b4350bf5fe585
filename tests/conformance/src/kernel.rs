//! What the kernel has in a namespace, as `ip` shows it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde::Deserialize;

use crate::namespace::Namespace;

/// An interface.
#[derive(Clone, Debug, Deserialize)]
pub struct Link {
    /// Its name.
    #[serde(rename = "ifname")]
    pub name: String,
    /// Its MAC.
    #[serde(default)]
    pub address: String,
    /// Its MTU.
    pub mtu: u64,
    /// `UP`, `LOWER_UP` and others.
    pub flags: Vec<String>,
    /// Its addresses.
    #[serde(rename = "addr_info")]
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Debug, Deserialize)]
pub struct Address {
    /// The address.
    pub local: Option<IpAddr>,
    /// Its prefix length.
    #[serde(rename = "prefixlen")]
    pub prefix: u8,
    /// `global`, `link`, `host`.
    #[serde(default)]
    pub scope: String,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub device: String,
    /// Who made it.
    pub protocol: String,
}

impl Link {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }

    /// Its addresses but those that the kernel makes by itself.
    pub fn global(&self) -> BTreeSet<IpNet> {
        let wanted = self.addresses.iter().filter(|address| address.scope != "link");
        wanted.filter_map(|address| IpNet::new(address.local?, address.prefix).ok()).collect()
    }
}

/// All interfaces but `lo`.
///
/// # Errors
/// When `ip` fails.
pub fn links(namespace: &Namespace) -> Result<Vec<Link>> {
    let text = namespace.ip(&["-j", "address", "show"])?;
    let mut links: Vec<Link> = serde_json::from_str(&text).context("read what ip prints")?;
    links.retain(|link| link.name != "lo");
    Ok(links)
}

/// The interface with this name.
///
/// # Errors
/// When `ip` fails.
pub fn link(namespace: &Namespace, name: &str) -> Result<Option<Link>> {
    Ok(links(namespace)?.into_iter().find(|link| link.name == name))
}

/// The names of all interfaces.
///
/// # Errors
/// When `ip` fails.
pub fn names(namespace: &Namespace) -> Result<BTreeSet<String>> {
    Ok(links(namespace)?.into_iter().map(|link| link.name).collect())
}

/// Unicast routes of the main table, both families.
///
/// # Errors
/// When `ip` fails.
pub fn routes(namespace: &Namespace) -> Result<Vec<Route>> {
    #[derive(Deserialize)]
    struct Shown {
        dst: String,
        gateway: Option<IpAddr>,
        via: Option<Via>,
        dev: Option<String>,
        #[serde(default)]
        protocol: String,
    }
    #[derive(Deserialize)]
    struct Via {
        host: IpAddr,
    }
    let mut routes = Vec::new();
    for (family, any) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
        let text = namespace.ip(&["-j", family, "route", "show"])?;
        let shown: Vec<Shown> = serde_json::from_str(&text).context("read what ip prints")?;
        for route in shown {
            let text = if route.dst == "default" { any } else { &route.dst };
            let Some(destination) = network(text) else { continue };
            routes.push(Route {
                destination,
                gateway: route.gateway.or(route.via.map(|via| via.host)),
                device: route.dev.unwrap_or_default(),
                protocol: route.protocol,
            });
        }
    }
    Ok(routes)
}

/// Reads a network; an address alone is one of one address.
pub fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok();
    network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|network| network.trunc())
}
