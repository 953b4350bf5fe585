//! Node objects without a machine of their own: what the API server tells of a large cluster.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use harness::command;
use harness::node_map::NodeMap;
use serde_json::{Value, json};

use crate::addresses::API;
use crate::control::Control;

/// So many there can be at a time.
pub(crate) const STRANGERS_MAX: u8 = 100;
/// As a kubelet has it (`nodeStatusMaxImages`).
const IMAGES: usize = 50;
/// Addresses that some of them move to.
const OTHERS: u8 = 50;

/// One of them. Its addresses are those of a machine on the nodes' LAN, which answers for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stranger(u8);

impl Stranger {
    /// By its number, from 0 on.
    pub(crate) fn new(number: usize) -> Self {
        Self((number % usize::from(STRANGERS_MAX)) as u8)
    }

    pub(crate) fn name(self) -> String {
        format!("stranger{}", self.0)
    }

    /// IPv4 first.
    pub(crate) fn pod_cidrs(self) -> [String; 2] {
        let n = 100 + self.0;
        [format!("10.244.{n}.0/24"), format!("fd00:10:244:{n}::/64")]
    }

    /// An address of each network.
    pub(crate) fn pods(self) -> [IpAddr; 2] {
        let n = 100 + self.0;
        // The last group of the network is written like the number.
        let group = u16::from_str_radix(&n.to_string(), 16).unwrap_or_default();
        [[10, 244, n, 5].into(), [0xfd00, 0x10, 0x244, group, 0, 0, 0, 5].into()]
    }

    /// Where it is at first.
    pub(crate) fn addresses(self) -> [IpAddr; 2] {
        addresses(100 + self.0)
    }

    /// Where it moves to.
    pub(crate) fn other_addresses(self) -> [IpAddr; 2] {
        addresses(100 + STRANGERS_MAX + self.0 % OTHERS)
    }

    pub(crate) fn create(self, control: &Control) -> Result<()> {
        self.create_with(control, &self.pod_cidrs(), &self.addresses())
    }

    /// As large as that of a real machine: most of it are names of images, of which a kubelet tells 50 at most.
    pub(crate) fn create_large(self, control: &Control) -> Result<()> {
        let mut object = self.object(&self.pod_cidrs(), &self.addresses());
        let image = |number: usize| {
            let name = format!("registry.example/team-{number}/service");
            let digest = format!("{name}@sha256:{number:064x}");
            json!({"names": [digest, format!("{name}:1.{number}")], "sizeBytes": 1 << 27})
        };
        object["status"]["images"] = (0..IMAGES).map(image).collect();
        write(control, "POST", "", &object)
    }

    /// With other pod networks or addresses than its own, or none.
    pub(crate) fn create_with(
        self,
        control: &Control,
        pod_cidrs: &[String],
        addresses: &[IpAddr],
    ) -> Result<()> {
        write(control, "POST", "", &self.object(pod_cidrs, addresses))
    }

    fn object(self, pod_cidrs: &[String], addresses: &[IpAddr]) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            // Without the label of an operating system: no DaemonSet wants a pod there.
            "metadata": {"name": self.name()},
            "spec": {"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs},
            "status": status(addresses),
        })
    }

    /// Moves it to other addresses.
    pub(crate) fn change(self, control: &Control, addresses: [IpAddr; 2]) -> Result<()> {
        let object = json!({"status": status(&addresses)});
        write(control, "PATCH", &format!("/{}/status", self.name()), &object)
    }

    pub(crate) fn delete(self, control: &Control) -> Result<()> {
        write(control, "DELETE", &format!("/{}", self.name()), &json!({}))
    }
}

fn addresses(host: u8) -> [IpAddr; 2] {
    [[192, 168, 1, host].into(), [0xfd00, 1, 0, 0, 0, 0, 1, host.into()].into()]
}

fn status(addresses: &[IpAddr]) -> Value {
    let one = |address| json!({"type": "InternalIP", "address": address});
    json!({"addresses": addresses.iter().map(one).collect::<Vec<_>>()})
}

/// Whether a node sends packets for `to` to one of these addresses; nowhere where none are given.
pub(crate) fn leads(nodes: &NodeMap, to: IpAddr, addresses: Option<[IpAddr; 2]>) -> Result<bool> {
    Ok(match (nodes.way(to)?, addresses) {
        (Some(way), Some(addresses)) => addresses.contains(&way),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    })
}

/// Lets the control plane's machine answer for the addresses of all, and of a pod of each: to a node they are neighbours
/// like any. What is inside VXLAN it does not understand.
pub(crate) fn answer(control: &Control) -> Result<()> {
    let hosts = 100..100 + STRANGERS_MAX + OTHERS;
    let pods = (0..usize::from(STRANGERS_MAX)).flat_map(|number| Stranger::new(number).pods());
    answer_for(control, hosts.flat_map(addresses).chain(pods))
}

/// The same for any addresses.
pub(crate) fn answer_for(
    control: &Control,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<()> {
    let lines = addresses.into_iter().map(|address| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        format!("address replace {address}/{bits} dev eth0\n")
    });
    control.namespace.ip(&lines.collect::<String>())
}

/// Asks the API server as `kubectl` does, at a tenth of its cost: it must not take the processors from what is
/// measured.
fn write(control: &Control, method: &str, path: &str, object: &Value) -> Result<()> {
    let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
    let beside = |extension| control.kubectl.kubeconfig.with_extension(extension);
    let mut curl = control.namespace.command("curl");
    curl.args(["--silent", "--show-error", "--request", method, "--data-binary", "@-"]);
    curl.args(["--header", &format!("Content-Type: application/{kind}")]);
    curl.arg("--cacert").arg(beside("ca")).arg("--cert").arg(beside("crt"));
    curl.arg("--key").arg(beside("key")).args(["--write-out", "\n%{http_code}"]);
    curl.arg(format!("{API}/api/v1/nodes{path}"));
    let output = command::feed(&mut curl, &object.to_string())?;
    let answer = command::checked(&curl, &output)?;
    let code = answer.lines().last().unwrap_or_default();
    ensure!(code.starts_with('2'), "{method} {path}: {answer}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_networks_and_addresses_of_its_own() {
        let all = (0..usize::from(STRANGERS_MAX)).map(Stranger::new);
        let mut seen = std::collections::BTreeSet::new();
        for stranger in all {
            assert!(stranger.pod_cidrs().into_iter().all(|cidr| seen.insert(cidr)));
            assert!(stranger.addresses().into_iter().all(|it| seen.insert(it.to_string())));
            assert_ne!(stranger.addresses(), stranger.other_addresses());
            let [ipv4, ipv6] = stranger.pod_cidrs();
            let [pod4, pod6] = stranger.pods().map(|pod| pod.to_string());
            assert!(pod4.starts_with(ipv4.trim_end_matches("0/24")), "{pod4} {ipv4}");
            assert!(pod6.starts_with(ipv6.trim_end_matches(":/64")), "{pod6} {ipv6}");
        }
    }
}
