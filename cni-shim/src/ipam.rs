//! Where the addresses of a pod come from: the agent's pools, or a delegated plugin.
//!
//! The agent learns of a delegated plugin before that is called, so that it can give the lease back when
//! nobody else does: whoever kills the plugin leaves a lease that somebody knows of.

mod delegate;
mod lease;
mod requested;
mod sizes;
mod watch;

use std::net::IpAddr;

use serde_json::Value;

use self::delegate::Delegate;
pub(crate) use self::requested::{Requested, requested};
use crate::error::{INVALID_CONFIG, UNSUPPORTED_FIELD, failure};
use crate::fault;
use crate::protocol::{Added, Failure, Source};
use crate::request::{Config, Environment};
use crate::result::Route;

/// Who gives the addresses.
#[derive(Debug)]
pub(crate) enum Ipam {
    /// The agent, from the node's pools; these if they are asked for.
    Pools(Vec<IpAddr>),
    /// A plugin.
    Delegate(Delegate),
}

/// What a pod gets.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) addresses: Vec<IpAddr>,
    /// Of the interface.
    pub(crate) mtu: u32,
    /// By the gateway of their family, whoever gave them.
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Value,
}

impl Given {
    fn new(added: Added, routes: Vec<Route>, dns: Value) -> Self {
        let Added { addresses, mtu, near } = added;
        match near {
            Some(near) => {
                Self { addresses, mtu: near.mtu, routes: sizes::sized(&routes, mtu, &near), dns }
            }
            None => Self { addresses, mtu, routes, dns },
        }
    }

    /// For a pod whose packets of IPv6 may be longer than 64 KiB.
    pub(crate) fn with_room_for_jumbograms(self) -> Self {
        Self { routes: sizes::with_room_for_jumbograms(self.routes, self.mtu), ..self }
    }
}

impl Ipam {
    /// As ADD needs it.
    ///
    /// # Errors
    /// When the configuration is wrong, or the delegated plugin is not there.
    pub(crate) fn new(
        environment: &Environment,
        config: &Config,
        requested: &Requested,
    ) -> Result<Self, Failure> {
        Ok(match delegate(environment, config)? {
            Some(delegate) => Self::Delegate(delegate),
            None => Self::Pools(requested.addresses.clone()),
        })
    }

    /// What the agent is asked for first.
    ///
    /// # Errors
    /// When the configuration of the delegated plugin is no document.
    pub(crate) fn first_source(&self) -> Result<Source, Failure> {
        Ok(match self {
            Self::Pools(requested) => Source::Pools(requested.clone()),
            Self::Delegate(delegate) => Source::Announced(Box::new(delegate.delegation()?)),
        })
    }

    /// Gets addresses, when the agent has given this to [`Self::first_source`]; `ask` asks it again. Sets
    /// `leased` when there may be a lease from then on.
    pub(crate) fn obtain(
        &self,
        first: Added,
        ask: impl Fn(Source) -> Result<Added, Failure>,
        leased: &mut bool,
    ) -> Result<Given, Failure> {
        match self {
            Self::Pools(_) => {
                let routes = lease::default_routes(&first.addresses);
                Ok(Given::new(first, routes, Value::Null))
            }
            Self::Delegate(delegate) => {
                fault::done(fault::ANNOUNCED);
                *leased = true;
                let lease = delegate.add()?;
                fault::done(fault::LEASED);
                let added = ask(Source::Leased(lease.addresses))?;
                Ok(Given::new(added, lease.routes, lease.dns))
            }
        }
    }

    /// Gives a lease back.
    pub(crate) fn give_back(&self) -> Result<(), Failure> {
        self.pass_on("DEL")
    }

    fn pass_on(&self, verb: &str) -> Result<(), Failure> {
        match self {
            Self::Pools(_) => Ok(()),
            Self::Delegate(delegate) => delegate.run(verb).map(drop),
        }
    }
}

/// As DEL, CHECK and GC need it: a configuration that ADD refuses has no lease.
///
/// # Errors
/// When the delegated plugin is not there.
pub(crate) fn of_del(environment: &Environment, config: &Config) -> Result<Ipam, Failure> {
    match delegated_type(config) {
        Ok(Some(_)) => Ok(match delegate(environment, config)? {
            Some(delegate) => Ipam::Delegate(delegate),
            None => Ipam::Pools(Vec::new()),
        }),
        Ok(None) | Err(_) => Ok(Ipam::Pools(Vec::new())),
    }
}

/// The delegated plugin's part of CHECK.
///
/// # Errors
/// Those of the delegated plugin.
pub(crate) fn check(environment: &Environment, config: &Config) -> Result<(), Failure> {
    of_del(environment, config)?.pass_on("CHECK")
}

/// The delegated plugin's part of GC: the configuration that it gets names the valid attachments.
///
/// # Errors
/// Those of the delegated plugin.
pub(crate) fn gc(environment: &Environment, config: &Config) -> Result<(), Failure> {
    of_del(environment, config)?.pass_on("GC")
}

/// The delegated plugin's part of STATUS.
///
/// # Errors
/// Those of the delegated plugin.
pub(crate) fn status(environment: &Environment, config: &Config) -> Result<(), Failure> {
    Ipam::new(environment, config, &Requested::default())?.pass_on("STATUS")
}

fn delegate(environment: &Environment, config: &Config) -> Result<Option<Delegate>, Failure> {
    delegated_type(config)?.map(|name| Delegate::find(name, environment, config)).transpose()
}

/// The `type` of the section `ipam`; none: the node's pools.
///
/// # Errors
/// When the section is wrong, or names what cannot work.
pub(crate) fn delegated_type(config: &Config) -> Result<Option<&str>, Failure> {
    let invalid = |message: &str, details: &str| Err(failure(INVALID_CONFIG, message, details));
    let section = match &config.ipam {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(section)) => section,
        Some(_) => return invalid("\"ipam\" is no object", "{\"type\": \"...\", ...}"),
    };
    let name = match section.get("type") {
        None if section.is_empty() => return Ok(None),
        Some(Value::String(name)) if name.is_empty() && section.len() == 1 => return Ok(None),
        Some(Value::String(name)) if !name.is_empty() => name.as_str(),
        Some(_) | None => {
            return invalid(
                "\"ipam\" has no \"type\"",
                "the name of a plugin; without the section, addresses come from the node's pools",
            );
        }
    };
    if name.contains('/') || name == "." || name == ".." {
        return invalid("\"ipam.type\" is no name of a plugin", "no path: CNI_PATH is searched");
    }
    if Some(name) == config.kind.as_deref() {
        return invalid(
            "\"ipam.type\" names the plugin itself",
            "without the section \"ipam\", addresses come from the node's pools",
        );
    }
    if name == "dhcp" {
        return Err(failure(
            UNSUPPORTED_FIELD,
            "\"ipam.type\" is \"dhcp\"",
            "a pod has a routed address and no broadcast domain: no DHCP server hears it. Leave \
             \"ipam\" out for addresses of the node's pools, or take \"host-local\" or \"static\"",
        ));
    }
    Ok(Some(name))
}

#[cfg(test)]
mod tests;
