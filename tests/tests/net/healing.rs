//! Somebody breaks what is ours: it is put back, reported, and packets pass again.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use dataplane_core::abi::address::IPV4_PREFIX_OFFSET;
use dataplane_core::abi::{Addr, NodeEntry, PodEntry};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::fabric::WORLD;
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;
use tests::wait::wait_until;

/// What the kernel tells about is seen at once, the rest within some seconds.
const HEAL_TIME_MAX: Duration = Duration::from_secs(15);

type Look = Box<dyn Fn() -> Result<String>>;

/// Something that is broken by hand.
struct Damage {
    what: &'static str,
    /// Under which the agent reports it.
    kind: &'static str,
    hammer: Command,
    /// A look with tools that are not ours, and what it shows when all is well.
    look: Look,
    wanted: String,
}

#[test]
fn routes_addresses_and_devices() {
    Cluster::builder(Mode::Vxlan).test(|cluster| heal(cluster, |node, _| Ok(in_netlink(node))));
}

#[test]
fn the_firewall() {
    Cluster::builder(Mode::Direct).test(|cluster| heal(cluster, |node, _| in_nftables(node)));
}

#[test]
fn maps() {
    Cluster::builder(Mode::Vxlan).test(|cluster| heal(cluster, |node, pod| Ok(in_maps(node, pod))));
}

#[test]
fn links_in_direct_mode() {
    Cluster::builder(Mode::Direct).test(|cluster| heal(cluster, in_links));
}

#[test]
fn links_in_vxlan_mode() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        heal(cluster, |node, _| {
            let (device, program) = ("podwire-vxlan", "pw_from_tunnel");
            Ok(vec![detach(node, device, TcAttachType::Ingress, program)])
        })
    });
}

#[test]
fn forwarding() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        heal(cluster, |node, _| {
            let sysctl = |name: &str| {
                let mut hammer = node.namespace.command("sysctl");
                hammer.arg("-w").arg(format!("{name}=0"));
                let wanted = format!("{name} = 1");
                let look = look(node, format!("sysctl {name}"));
                Damage { what: "a sysctl", kind: "sysctl", hammer, look, wanted }
            };
            let names = [
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                "net.ipv4.conf.podwire0.forwarding",
            ];
            Ok(names.map(sysctl).into())
        })
    });
}

#[test]
fn pins_of_programs_and_maps() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pins = ["programs/pw_from_pod", "programs/pw_to_pod", "maps/pw_pods"];
        let pins = pins.map(|pin| node.bpffs.join(pin));
        for pin in &pins {
            std::fs::remove_file(pin).with_context(|| format!("{}", pin.display()))?;
        }
        wait_until("the pins", HEAL_TIME_MAX, || {
            let missing: Vec<&PathBuf> = pins.iter().filter(|pin| !pin.exists()).collect();
            ensure!(missing.is_empty(), "{missing:?} are missing");
            Ok(())
        })?;
        let pod = node.pod()?;
        probe::ping(&node.namespace, pod.addresses[0])
    });
}

/// Does each damage, and waits until it cannot be seen any more.
fn heal(
    cluster: &Cluster,
    damages: impl FnOnce(&Arc<Node>, &Pod) -> Result<Vec<Damage>>,
) -> Result<()> {
    let node = cluster.node(1);
    let (pod, remote) = (node.pod()?, cluster.node(2).pod()?);
    let _server = Server::start(&remote.namespace, &remote.addresses)?;
    reach(node, &pod, &remote)?;
    for Damage { what, kind, mut hammer, look, wanted } in damages(node, &pod)? {
        let what = format!("{what}: {hammer:?}");
        let seen = look()?;
        ensure!(seen.contains(&wanted), "{what}: {seen} before it is broken");
        let before = drift(node, kind)?;
        command::run(&mut hammer)?;
        wait_until(&what, HEAL_TIME_MAX, || {
            let status = node.status()?;
            ensure!(status["settled"] == true, "{}", status["problems"]);
            ensure!(drift(node, kind)? > before, "not reported: {}", status["drift"]);
            let seen = look()?;
            ensure!(seen.contains(&wanted), "{seen}");
            Ok(())
        })?;
        reach(node, &pod, &remote).context(what)?;
    }
    Ok(())
}

fn reach(node: &Node, pod: &Pod, remote: &Pod) -> Result<()> {
    let world = WORLD.map(|address| address.parse().expect("an address"));
    for address in remote.addresses.iter().chain(&world) {
        probe::ping(&pod.namespace, *address)?;
    }
    for address in &remote.addresses {
        probe::tcp(&pod.namespace, *address, 100_000)?;
        probe::tcp(&node.namespace, *address, 100_000)?;
    }
    for address in &pod.addresses {
        probe::ping(&node.namespace, *address)?;
        probe::ping(&remote.namespace, *address)?;
    }
    Ok(())
}

fn drift(node: &Node, kind: &str) -> Result<u64> {
    Ok(node.status()?["drift"][kind].as_u64().unwrap_or(0))
}

/// A program, given as words, that shows something of the node.
fn look(node: &Arc<Node>, words: String) -> Look {
    let node = Arc::clone(node);
    Box::new(move || node.namespace.run(&words))
}

fn in_netlink(node: &Arc<Node>) -> Vec<Damage> {
    let table = [
        ("the IPv4 route", "route", "route delete 10.244.0.0/16", "route", "10.244.0.0/16 dev pod"),
        (
            "the IPv6 route",
            "route",
            "-6 route delete fd00:10:244::/48",
            "-6 route",
            "fd00:10:244::/48 dev podwire0",
        ),
        ("the host device", "device", "link delete podwire0", "link show podwire0", ",UP"),
        (
            "the tunnel device",
            "device",
            "link delete podwire-vxlan",
            "-d link show podwire-vxlan",
            "dstport 8472",
        ),
        ("an address", "address", "address flush dev podwire0", "address", "10.244.1.1/32"),
        ("a state", "device", "link set podwire0 down", "link show podwire0", ",UP"),
    ];
    let damage = |(what, kind, hammer, shown, wanted): (_, _, &str, &str, &str)| {
        let mut ip = Command::new("ip");
        ip.args(["-n", node.namespace.name()]).args(hammer.split(' '));
        let look = look(node, format!("ip {shown}"));
        Damage { what, kind, hammer: ip, look, wanted: wanted.to_owned() }
    };
    table.map(damage).into()
}

fn in_nftables(node: &Arc<Node>) -> Result<Vec<Damage>> {
    let listing = node.namespace.run("nft -s list table inet podwire")?;
    let chain = node.namespace.run("nft -a list chain inet podwire postrouting")?;
    let rules = chain.lines().filter(|line| line.contains("masquerade"));
    let handles: Vec<&str> = rules.filter_map(|rule| rule.rsplit(' ').next()).collect();
    let handle = handles.first().context("no rule masquerades")?;
    let nft = |what, words: String| {
        let mut hammer = node.namespace.command("nft");
        hammer.args(words.split(' '));
        let look = look(node, "nft -s list table inet podwire".to_owned());
        Damage { what, kind: "nftables", hammer, look, wanted: listing.clone() }
    };
    Ok(vec![
        nft("a rule", format!("delete rule inet podwire postrouting handle {handle}")),
        nft("a rule more", "insert rule inet podwire postrouting counter return".to_owned()),
        nft("the table", "delete table inet podwire".to_owned()),
    ])
}

fn in_maps(node: &Arc<Node>, pod: &Pod) -> Vec<Damage> {
    let entry = |what, kind, map: &str, key: &[u8], entry: u32| {
        let pin = node.bpffs.join("maps").join(map);
        let key: Vec<String> = key.iter().map(u8::to_string).collect();
        let bpftool = move |verb: &str| {
            let mut bpftool = Command::new("bpftool");
            bpftool.args(["map", verb, "pinned"]).arg(&pin).arg("key").args(&key);
            bpftool
        };
        let hammer = bpftool("delete");
        let look: Look = Box::new(move || command::run(&mut bpftool("lookup")));
        Damage { what, kind, hammer, look, wanted: format!("\"kind\": {entry},") }
    };
    let prefix = |address: &str, length: u32| {
        let address: IpAddr = address.parse().expect("an address");
        [length.to_ne_bytes().as_slice(), &Addr::from(address).bytes].concat()
    };
    let [ipv4, ipv6] = [pod.addresses[0], pod.addresses[1]].map(|ip| Addr::from(ip).bytes);
    let gateway = Addr::from(node.gateways[0]).bytes;
    let remote = [prefix("10.244.2.0", IPV4_PREFIX_OFFSET + 24), prefix("fd00:10:244:2::", 64)];
    vec![
        entry("a pod", "pod", "pw_pods", &ipv4, PodEntry::POD),
        entry("a pod's IPv6", "pod", "pw_pods", &ipv6, PodEntry::POD),
        entry("the node among the pods", "pod", "pw_pods", &gateway, PodEntry::HOST),
        entry("a node", "node", "pw_nodes", &remote[0], NodeEntry::TUNNEL),
        entry("a node's IPv6", "node", "pw_nodes", &remote[1], NodeEntry::TUNNEL),
    ]
}

fn in_links(node: &Arc<Node>, pod: &Pod) -> Result<Vec<Damage>> {
    let veth = pod.host_ifname()?;
    let (ingress, egress) = (TcAttachType::Ingress, TcAttachType::Egress);
    Ok(vec![
        detach(node, &veth, ingress, "pw_from_pod"),
        detach(node, &veth, egress, "pw_to_pod"),
        detach(node, "eth0", ingress, "pw_from_net"),
        detach(node, "podwire0", egress, "pw_from_host"),
        unpin(node, &veth, ingress, "pw_from_pod"),
        unpin(node, "eth0", ingress, "pw_from_net"),
    ])
}

fn detach(node: &Arc<Node>, device: &str, hook: TcAttachType, program: &str) -> Damage {
    let mut hammer = Command::new("bpftool");
    hammer.args(["link", "detach", "pinned"]).arg(pin(node, device, hook));
    link("a link", node, device, hook, program, hammer)
}

/// The pin is what holds the link.
fn unpin(node: &Arc<Node>, device: &str, hook: TcAttachType, program: &str) -> Damage {
    let mut hammer = Command::new("rm");
    hammer.arg(pin(node, device, hook));
    link("the pin of a link", node, device, hook, program, hammer)
}

fn link(
    what: &'static str,
    node: &Arc<Node>,
    device: &str,
    hook: TcAttachType,
    program: &str,
    hammer: Command,
) -> Damage {
    let (node, device) = (Arc::clone(node), device.to_owned());
    let look: Look = Box::new(move || {
        let (_, programs) = node.namespace.enter(|| SchedClassifier::query_tcx(&device, hook))?;
        let names: Vec<_> = programs.iter().filter_map(|p| p.name_as_str()).collect();
        ensure!(pin(&node, &device, hook).exists(), "no pin");
        Ok(names.join(" "))
    });
    Damage { what, kind: "link", hammer, look, wanted: program.to_owned() }
}

fn pin(node: &Node, device: &str, hook: TcAttachType) -> PathBuf {
    let hook = if matches!(hook, TcAttachType::Egress) { "egress" } else { "ingress" };
    node.bpffs.join(format!("links/{device}-{hook}"))
}
