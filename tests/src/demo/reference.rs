//! What the figures are compared with.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::command;
use crate::fabric::Fabric;
use crate::namespace::Namespace;
use crate::run::Run;

/// Where distributions put the plugins of the CNI project.
const PLUGINS: &str = "/usr/lib/cni";
const VXLAN_OVERHEAD: u32 = 50;

/// Two namespaces that measure between themselves.
pub(super) struct Pair {
    pub(super) client: Namespace,
    pub(super) server: Namespace,
    pub(super) address: IpAddr,
    /// The machines that they are on.
    pub(super) machines: Vec<Namespace>,
}

impl Pair {
    /// The machine of the client.
    pub(super) fn machine(&self) -> Result<&Namespace> {
        self.machines.first().context("no machines")
    }
}

/// Two namespaces and a veth pair, as the kernel makes them.
pub(super) fn veth_pair(run: &Run) -> Result<Pair> {
    let client = Namespace::new(&format!("{}-bare1", run.name()), run.is_kept())?;
    let server = Namespace::new(&format!("{}-bare2", run.name()), run.is_kept())?;
    client.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {}\nlink set eth0 up\n\
         address add 10.98.0.1/24 dev eth0",
        server.name()
    ))?;
    server.ip("link set eth0 up\naddress add 10.98.0.2/24 dev eth0")?;
    Ok(Pair { client, server, address: [10, 98, 0, 2].into(), machines: Vec::new() })
}

/// Two more machines on the LAN, each with a pod on a Linux bridge, joined by VXLAN.
pub(super) fn bridge_and_vxlan(run: &Run, fabric: &Fabric) -> Result<Pair> {
    let mut pods = Vec::new();
    let mut machines = Vec::new();
    for number in 1..=2_u8 {
        let name = |what| format!("{}-bridge{number}{what}", run.name());
        let machine = Namespace::new(&name(""), run.is_kept())?;
        let pod = Namespace::new(&name("-pod"), run.is_kept())?;
        fabric.plug(&format!("bridge{number}"), &machine, 1)?;
        machine.ip(&format!("address add 192.168.1.{}/24 dev eth0", 20 + number))?;
        attach(&machine, &pod, number)?;
        machine.ip(&format!(
            "link add vx0 type vxlan id 99 dstport 4789 local 192.168.1.{} dev eth0 nolearning\n\
             link set vx0 master cni0 up",
            20 + number
        ))?;
        machines.push(machine);
        pods.push(pod);
    }
    for (number, machine) in machines.iter().enumerate() {
        let other = 1 - number;
        let mac = mac_of(&pods[other])?;
        let node = format!("192.168.1.{}", 21 + other);
        for mac in [mac.as_str(), "00:00:00:00:00:00"] {
            machine.run(&format!("bridge fdb append {mac} dev vx0 dst {node}"))?;
        }
    }
    let (server, client) = (pods.pop().context("pods")?, pods.pop().context("pods")?);
    Ok(Pair { client, server, address: [10, 99, 0, 2].into(), machines })
}

/// Connects a pod to the bridge, by the reference plugin where it is installed.
fn attach(machine: &Namespace, pod: &Namespace, number: u8) -> Result<()> {
    let mtu = 1500 - VXLAN_OVERHEAD;
    let plugin = Path::new(PLUGINS).join("bridge");
    if !plugin.exists() {
        return machine
            .ip(&format!(
                "link add cni0 mtu {mtu} type bridge\nlink set cni0 up\n\
             link add pod mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\n\
             link set pod master cni0 up",
                pod.name()
            ))
            .and_then(|()| {
                pod.ip(&format!("link set eth0 up\naddress add 10.99.0.{number}/24 dev eth0"))
            });
    }
    let configuration = json!({
        "cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "cni0", "mtu": mtu,
        "ipam": { "type": "static", "addresses": [{ "address": format!("10.99.0.{number}/24") }] },
    });
    let mut command = machine.command(&plugin.to_string_lossy());
    command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", pod.name());
    command.env("CNI_NETNS", pod.path()).env("CNI_IFNAME", "eth0").env("CNI_PATH", PLUGINS);
    let output = command::feed(&mut command, &configuration.to_string())?;
    command::checked(&command, &output).map(drop)
}

fn mac_of(pod: &Namespace) -> Result<String> {
    let links: Value = serde_json::from_str(&pod.run("ip -j link show eth0")?)?;
    Ok(links[0]["address"].as_str().context("no address")?.to_owned())
}
