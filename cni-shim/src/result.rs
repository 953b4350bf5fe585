//! Results in the shapes of the specification (0.3.0, 0.4.0: result with "version" of each address).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{DECODE, failure};
use crate::names::{GATEWAY_IPV4, GATEWAY_IPV6};
use crate::protocol::Failure;

/// The result of ADD, and the part of prevResult that CHECK compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddResult {
    #[serde(default)]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(default)]
    pub(crate) ips: Vec<Address>,
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) dns: Value,
}

/// An interface; one with a sandbox is the pod's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) mac: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    /// From 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
}

/// An address of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) address: ipnet::IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
}

/// A route of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: ipnet::IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
    /// This and the following from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advmss: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
}

impl Route {
    /// A plain one, by our gateway.
    pub(crate) fn new(dst: ipnet::IpNet) -> Self {
        let gw = Some(gateway(dst.addr()));
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None }
    }
}

impl AddResult {
    /// The result for a pod with these addresses.
    pub(crate) fn new(host: Interface, pod: Interface, addresses: &[IpAddr]) -> Self {
        Self {
            interfaces: vec![host, pod],
            ips: addresses
                .iter()
                .map(|ip| Address {
                    address: ipnet::IpNet::from(*ip),
                    gateway: Some(gateway(*ip)),
                    interface: Some(1),
                })
                .collect(),
            routes: addresses.iter().map(|ip| Route::new(everywhere(*ip))).collect(),
            dns: json!({}),
        }
    }

    /// With these routes, which the container has by us, and this `dns`.
    pub(crate) fn with(self, routes: &[Route], dns: &Value) -> Self {
        let dns = if dns.is_object() { dns.clone() } else { self.dns };
        Self { routes: routes.to_vec(), dns, ..self }
    }

    /// The document in the shape of a version.
    pub(crate) fn to_json(&self, version: &str) -> Value {
        let mut document = json!(self);
        document["cniVersion"] = version.into();
        if version != "1.1.0" {
            for interface in document["interfaces"].as_array_mut().into_iter().flatten() {
                interface.as_object_mut().map(|interface| interface.remove("mtu"));
            }
            for route in document["routes"].as_array_mut().into_iter().flatten() {
                let is_old = |key: &String| ["dst", "gw"].contains(&key.as_str());
                route
                    .as_object_mut()
                    .into_iter()
                    .for_each(|route| route.retain(|key, _| is_old(key)));
            }
        }
        if !version.starts_with("1.") {
            for (entry, ip) in document["ips"].as_array_mut().into_iter().flatten().zip(&self.ips) {
                entry["version"] = if ip.address.addr().is_ipv4() { "4" } else { "6" }.into();
            }
        }
        document
    }
}

/// The result of plugins before ours in the chain, with ours behind it (CNI 1.1, section 2, ADD). Ours is the
/// document of [`AddResult::to_json`], and what theirs says that we do not know stays.
///
/// # Errors
/// When theirs is no result.
pub(crate) fn behind(previous: Option<&Value>, ours: Value) -> Result<Value, Failure> {
    let Some(mut document) = previous.filter(|previous| !previous.is_null()).cloned() else {
        return Ok(ours);
    };
    let wrong =
        |what: &str| failure(DECODE, format!("\"prevResult\" {what}"), "it must be a result");
    let fields = document.as_object_mut().ok_or_else(|| wrong("is no object"))?;
    let mut offset = 0;
    for key in ["interfaces", "ips", "routes"] {
        let list = fields.entry(key).or_insert(Value::Null);
        if list.is_null() {
            *list = json!([]);
        }
        let list =
            list.as_array_mut().ok_or_else(|| wrong(&format!("has {key} that are no list")))?;
        if key == "interfaces" {
            offset = list.len();
        }
        for mut item in ours[key].as_array().cloned().unwrap_or_default() {
            if let Some(at) = item.get("interface").and_then(Value::as_u64) {
                item["interface"] = at.saturating_add(offset as u64).into();
            }
            list.push(item);
        }
    }
    fields.insert("cniVersion".to_owned(), ours["cniVersion"].clone());
    let is_told = ours["dns"].as_object().is_some_and(|dns| !dns.is_empty());
    if is_told || !fields.contains_key("dns") {
        fields.insert("dns".to_owned(), ours["dns"].clone());
    }
    Ok(document)
}

/// The gateway of an address's family.
pub(crate) fn gateway(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => GATEWAY_IPV4.into(),
        IpAddr::V6(_) => GATEWAY_IPV6.into(),
    }
}

/// The default destination of an address's family.
pub(crate) fn everywhere(ip: IpAddr) -> ipnet::IpNet {
    match ip {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}

/// A MAC as the specification writes it.
pub(crate) fn mac_text(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> AddResult {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            mac: mac_text([2, 0, 0, 0, 0, 0xff]),
            sandbox: sandbox.into(),
            mtu: Some(1450),
        };
        let addresses = ["10.244.1.2", "fd00::2"].map(|ip| ip.parse().expect("an address"));
        AddResult::new(interface("pwx", ""), interface("eth0", "/run/netns/x"), &addresses)
    }

    #[test]
    fn shapes_follow_the_version() {
        let new = result().to_json("1.0.0");
        assert_eq!(new["ips"][0]["address"], "10.244.1.2/32");
        assert_eq!(new["ips"][1]["address"], "fd00::2/128");
        assert_eq!(new["ips"][0]["gateway"], "169.254.1.1");
        assert_eq!(new["ips"][0]["interface"], 1);
        assert!(new["ips"][0]["version"].is_null());
        assert_eq!(new["interfaces"][1]["sandbox"], "/run/netns/x");
        assert!(new["interfaces"][0]["sandbox"].is_null());
        assert_eq!(new["routes"][1], json!({"dst": "::/0", "gw": "fe80::1"}));
        assert!(new["interfaces"][1]["mtu"].is_null(), "{new}");
        assert_eq!(result().to_json("1.1.0")["interfaces"][1]["mtu"], 1450);
        let mut sized = result();
        sized.routes[0].mtu = Some(1400);
        assert_eq!(sized.to_json("1.1.0")["routes"][0]["mtu"], 1400);
        assert_eq!(sized.to_json("1.0.0")["routes"][0]["mtu"], Value::Null);
        let old = result().to_json("0.4.0");
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["cniVersion"], "0.4.0");
    }

    #[test]
    fn what_plugins_before_ours_gave_stays() {
        let ours = || result().to_json("1.0.0");
        assert_eq!(behind(None, ours()), Ok(ours()));
        assert_eq!(behind(Some(&Value::Null), ours()), Ok(ours()));
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "dummy0", "x": 1}],
            "ips": [{"address": "192.0.2.1/24", "interface": 0}],
            "dns": {"nameservers": ["192.0.2.53"]},
        });
        let both = behind(Some(&previous), ours()).expect("a result");
        assert_eq!(both["interfaces"][0], previous["interfaces"][0]);
        assert_eq!(both["interfaces"][2]["name"], "eth0");
        assert_eq!(both["ips"][0], previous["ips"][0]);
        assert_eq!(
            (&both["ips"][1]["address"], &both["ips"][1]["interface"]),
            (&json!("10.244.1.2/32"), &json!(2))
        );
        assert_eq!(both["routes"], ours()["routes"]);
        assert_eq!(both["dns"], previous["dns"]);
        for wrong in [json!("text"), json!({"ips": {}})] {
            assert_eq!(behind(Some(&wrong), ours()).expect_err("refused").code, DECODE);
        }
    }

    #[test]
    fn a_result_can_be_read_back() {
        for (version, has_mtu) in [("0.3.0", false), ("1.0.0", false), ("1.1.0", true)] {
            let read: AddResult =
                serde_json::from_value(result().to_json(version)).expect("a result");
            let mut wanted = result();
            for interface in wanted.interfaces.iter_mut().filter(|_| !has_mtu) {
                interface.mtu = None;
            }
            assert_eq!(read, wanted, "{version}");
        }
    }
}
