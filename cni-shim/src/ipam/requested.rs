//! Addresses and a MAC that somebody asks for.
//!
//! In the order of the reference plugins: a capability (`runtimeConfig`) before `args`, and that before
//! `CNI_ARGS`, which is deprecated.

use std::net::IpAddr;

use dataplane_core::abi::config::GATEWAY_MAC;
use ipnet::IpNet;
use serde_json::Value;

use crate::error::{INVALID_CONFIG, INVALID_ENVIRONMENT, failure};
use crate::protocol::Failure;
use crate::request::{Config, Environment};

/// What somebody asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    /// At most one of each family.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<[u8; 6]>,
}

/// Reads what is asked for. Addresses are the delegated plugin's business where there is one.
///
/// # Errors
/// When it is nothing that a pod can have.
pub(crate) fn requested(environment: &Environment, config: &Config) -> Result<Requested, Failure> {
    let mut requested = Requested::default();
    let of_pools = super::delegated_type(config)?.is_none();
    if of_pools && let Some(wish) = Wish::find(environment, config, "ips", "IP")? {
        requested.addresses = wish.addresses()?;
    }
    if let Some(wish) = Wish::find(environment, config, "mac", "MAC")? {
        for text in &wish.values {
            requested.mac = Some(mac(text).map_err(|why| wish.refuse(text, why))?);
        }
    }
    Ok(requested)
}

/// Who asks, and for what.
struct Wish {
    code: u32,
    place: String,
    values: Vec<String>,
}

impl Wish {
    /// The first place that asks for something.
    fn find(
        environment: &Environment,
        config: &Config,
        key: &str,
        argument: &str,
    ) -> Result<Option<Self>, Failure> {
        let of_args = config.args.as_ref().map(|args| &args["cni"][key]);
        let documents = [
            (config.runtime_config.get(key), format!("\"runtimeConfig.{key}\"")),
            (of_args, format!("\"args.cni.{key}\"")),
        ];
        for (value, place) in documents {
            let code = INVALID_CONFIG;
            let values = match value {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) if key == "mac" => Some(vec![text.clone()]),
                Some(Value::Array(list)) if key == "ips" => {
                    list.iter().map(|item| item.as_str().map(str::to_owned)).collect()
                }
                Some(_) => None,
            };
            let Some(mut values) = values else {
                let what = if key == "mac" { "a text" } else { "a list of texts" };
                return Err(failure(code, format!("{place} is wrong"), format!("it is {what}")));
            };
            values.retain(|text| !text.is_empty());
            if !values.is_empty() {
                return Ok(Some(Self { code, place, values }));
            }
        }
        let value = environment.argument(argument)?.unwrap_or_default();
        let values: Vec<String> =
            value.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        let place = format!("{argument} in CNI_ARGS");
        Ok((!values.is_empty()).then_some(Self { code: INVALID_ENVIRONMENT, place, values }))
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in &self.values {
            let address = address(text).ok_or_else(|| {
                self.refuse(text, "no IP address: 10.0.0.5, 10.0.0.5/24 or fd00::5")
            })?;
            let mut before = addresses.iter();
            if let Some(other) = before.find(|other| other.is_ipv4() == address.is_ipv4()) {
                let why = format!("{other} is of the same family, and a pod has one of each");
                return Err(self.refuse(text, &why));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn refuse(&self, text: &str, why: &str) -> Failure {
        let message = format!("{} asks for what no pod can have", self.place);
        failure(self.code, message, format!("{text:?}: {why}"))
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

fn mac(text: &str) -> Result<[u8; 6], &'static str> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let octets: Option<Vec<u8>> = text
        .split(separator)
        .map(|part| {
            let digits = part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        })
        .collect();
    let octets = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
    match octets {
        None => Err("no MAC address: 02:00:00:00:00:05"),
        Some(octets) if octets[0] & 1 == 1 => Err("the address of a group of interfaces"),
        Some(octets) if octets == [0; 6] => Err("all zeros"),
        Some(octets) if octets == GATEWAY_MAC.octets => Err("the gateway's MAC"),
        Some(octets) => Ok(octets),
    }
}
