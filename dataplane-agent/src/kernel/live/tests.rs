//! The kernel edge against a real kernel, in a network and a mount namespace of each test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use cni_shim::names::Hook;
use dataplane_core::abi::config::TUNNEL_MAC;
use dataplane_core::abi::names::{
    MAP_CONFIG, MAP_PODS, PROGRAM_FROM_HOST, PROGRAM_FROM_NET, PROGRAM_FROM_POD, PROGRAM_TO_POD,
};
use dataplane_core::abi::{ABI_VERSION, Addr, Config, Mac, NodeEntry, PodEntry};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::kernel::{
    Device, HOST_DEVICE, HOST_DEVICE_PEER, Hop, LinkHook, Neighbour, NftRules, PeerRoute, Route,
    TUNNEL_DEVICE,
};

mod near;
mod pins;
mod probe;
mod watch;
mod ways;

/// Runs a test on a thread in namespaces of its own, with a bpffs that vanishes with them.
fn isolated(test: impl AsyncFnOnce(&Path) + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory =
        std::env::temp_dir().join(format!("podwire-kernel-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let bpffs = directory.clone();
    let result = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("this test makes namespaces and loads programs: run it as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
        run("ip link set lo up");
        // From here on as in the DaemonSet; what it starts gets all that root has.
        let capabilities =
            [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];
        caps::set(None, CapSet::Effective, &capabilities.into()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&bpffs.join("podwire")));
    })
    .join();
    fs::remove_dir(&directory).unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a tool and returns what it printed.
fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn nets<T: Ord + std::str::FromStr, const N: usize>(texts: [&str; N]) -> BTreeSet<T>
where
    T::Err: std::fmt::Debug,
{
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What the agent of a node wants, with an uplink `up0`.
fn wanted() -> State {
    let node = |ip: [u8; 4], kind| NodeEntry { node: ip.map_to(), kind, mtu: 1450 };
    State {
        aggregates: BTreeMap::new(),
        devices: [
            (HOST_DEVICE.to_owned(), Device::Host { mtu: 65535 }),
            (TUNNEL_DEVICE.to_owned(), Device::Tunnel { port: 8472, mtu: 1450 }),
        ]
        .into(),
        addresses: nets(["10.244.1.1/32", "fd00:10:244:1::1/128"]),
        routes: [
            ("10.244.0.0/16", Route { source: "10.244.1.1".parse().unwrap(), mtu: 1450 }),
            ("fd00:10:244::/48", Route { source: "fd00:10:244:1::1".parse().unwrap(), mtu: 1450 }),
        ]
        .map(|(net, route)| (net.parse().unwrap(), route))
        .into(),
        sysctls: [("net/ipv4/ip_forward".to_owned(), "1".to_owned())].into(),
        neighbours: BTreeSet::new(),
        nft: Some(NftRules {
            pods: nets(["10.244.1.0/24", "fd00:10:244:1::/64"]),
            cluster: nets(["10.244.0.0/16", "fd00:10:244::/48"]),
            nodes: nets(["192.168.1.11", "192.168.1.12", "fd00:1::11"]),
            own: [].into(),
            tunnel_port: Some(8472),
        }),
        links: [
            ((HOST_DEVICE.to_owned(), LinkHook::Egress), PROGRAM_FROM_HOST.to_owned()),
            (("up0.5".to_owned(), LinkHook::Ingress), PROGRAM_FROM_NET.to_owned()),
        ]
        .into(),
        config: Some(config()),
        pods: [(Addr::from([10, 244, 1, 2].map_ip()).into(), pod(1))].into(),
        nodes: [
            ("10.244.2.0/24", node([192, 168, 1, 12], NodeEntry::TUNNEL)),
            ("fd00:10:244:2::/64", node([192, 168, 1, 12], NodeEntry::DIRECT)),
            ("192.168.1.12/32", node([0, 0, 0, 0], NodeEntry::NODE)),
        ]
        .map(|(net, entry)| (net.parse().unwrap(), entry))
        .into_iter()
        .collect(),
    }
}

trait MapTo {
    fn map_ip(self) -> std::net::IpAddr;
    fn map_to(self) -> Addr;
}

impl MapTo for [u8; 4] {
    fn map_ip(self) -> std::net::IpAddr {
        std::net::Ipv4Addr::from(self).into()
    }
    fn map_to(self) -> Addr {
        self.map_ip().into()
    }
}

fn config() -> Config {
    Config {
        abi_version: ABI_VERSION,
        flags: 0,
        host_ifindex: 1,
        tunnel_ifindex: 2,
        tunnel_vni: 3,
        tunnel_port: 8472,
        host_mac: Mac::default(),
        tunnel_mac: TUNNEL_MAC,
        maps_version: 0,
        node_ipv4: [192, 168, 1, 11].map_to(),
        node_ipv6: Addr::UNSPECIFIED,
    }
}

fn pod(generation: u64) -> PodEntry {
    PodEntry {
        ifindex: 7,
        kind: PodEntry::POD,
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        gateway_mac: Mac::new([2, 0, 0, 0, 0, 2]),
        reserved: 0,
        generation,
    }
}

/// All that makes the wanted state, in an order that works.
fn actions(state: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    for (name, device) in &state.devices {
        actions.push(Action::PutDevice { name: name.clone(), device: device.clone() });
    }
    actions.extend(state.addresses.iter().map(|address| Action::AddAddress(*address)));
    for (destination, route) in &state.routes {
        actions.push(Action::PutRoute { destination: *destination, route: route.clone() });
    }
    for (path, value) in &state.sysctls {
        actions.push(Action::SetSysctl { path: path.clone(), value: value.clone() });
    }
    actions.extend(state.nft.iter().map(|rules| Action::PutNft(rules.clone())));
    for ((interface, hook), program) in &state.links {
        let (interface, program) = (interface.clone(), program.clone());
        actions.push(Action::Attach { interface, hook: *hook, program });
    }
    for (key, entry) in &state.pods {
        actions.push(Action::PutPod { address: Addr { bytes: key.0 }, entry: *entry });
    }
    actions.push(Action::PutNodes(state.nodes.clone()));
    actions.extend(state.config.iter().map(|config| Action::PutConfig(*config)));
    actions
}

async fn apply(kernel: &mut LiveKernel, actions: &[Action]) {
    for action in actions {
        kernel.apply(action).await.unwrap_or_else(|error| panic!("{action:?}: {error}"));
    }
}

async fn observe(kernel: &mut LiveKernel) -> State {
    let sysctls = wanted().sysctls.into_keys().collect();
    let questions = Questions { sysctls, ..Questions::default() };
    let observed = kernel.observe(&questions).await.unwrap();
    assert_eq!(observed.unknown, BTreeMap::new());
    observed.state
}

/// A node with its uplink (whose name has a dot) and everything set up.
async fn node(bpffs: &Path) -> LiveKernel {
    run("ip link add up0.5 type veth peer up0.5p && ip link set up0.5 up");
    let mut kernel = LiveKernel::open(bpffs, true).unwrap();
    apply(&mut kernel, &actions(&wanted())).await;
    kernel
}

fn link_ids(bpffs: &Path) -> BTreeMap<std::path::PathBuf, u32> {
    let list = link::list(&Pins(bpffs.to_owned())).unwrap();
    list.into_iter().map(|pin| (pin.path, pin.link.id)).collect()
}

/// The next event, or none for a while.
async fn next(events: &mut tokio::sync::mpsc::Receiver<Event>) -> Option<Event> {
    tokio::time::timeout(Duration::from_millis(300), events.recv()).await.ok().flatten()
}

#[test]
fn what_is_put_is_observed() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        pretty_assert(&observe(&mut kernel).await, &wanted());
        // Each action can be repeated.
        apply(&mut kernel, &actions(&wanted())).await;
        pretty_assert(&observe(&mut kernel).await, &wanted());
        let details = run("ip -d link show dev podwire-vxlan");
        for part in ["external", "dstport 8472", "nolearning", "addrgenmode none", "mtu 1450"] {
            assert!(details.contains(part), "{part} is missing: {details}");
        }
        assert!(run("ip -6 addr show dev podwire-vxlan").is_empty());
        let address = run("ip -6 addr show dev podwire0");
        assert!(address.contains("nodad") && !address.contains("fe80"), "{address}");
        assert!(run("ip route show proto 157").contains("10.244.0.0/16 dev podwire0"));
    });
}

fn pretty_assert(left: &State, right: &State) {
    assert_eq!(left, right, "\n left: {left:#?}\nright: {right:#?}");
}

#[test]
fn what_somebody_changes_is_seen_and_healed() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let links = bpffs.join("links");
        let links = links.display();
        for damage in [
            "ip link del podwire0",
            "ip link set podwire0 down",
            "ip link set podwire0 mtu 1500",
            "ip link set podwire0p down",
            "ip link set podwire0 arp on",
            "ip link set podwire0 addrgenmode eui64",
            "ip link set podwire0p name other",
            "ip link del podwire-vxlan",
            "ip link set podwire-vxlan down",
            "ip link set podwire-vxlan mtu 1300",
            "ip link set podwire-vxlan address 02:00:00:00:00:99",
            "ip addr add fe80::5/64 dev podwire-vxlan",
            "ip link del podwire-vxlan; ip link add podwire-vxlan type vxlan external dstport 4789",
            "ip link del podwire-vxlan; ip link add podwire-vxlan type vxlan id 5 dstport 8472",
            "ip link del podwire-vxlan; ip link add podwire-vxlan type bridge",
            "ip link del podwire0; ip link add podwire0 type bridge; ip link set podwire0 up",
            "ip addr del 10.244.1.1/32 dev podwire0",
            "ip -6 addr del fd00:10:244:1::1/128 dev podwire0",
            "ip route del 10.244.0.0/16",
            "ip route change 10.244.0.0/16 dev podwire0 src 10.244.1.1 mtu 99 proto 157 scope link",
            "ip route replace 10.244.0.0/16 dev up0.5 proto 157",
            "ip route replace 10.244.0.0/16 dev podwire0 proto static",
            "ip -6 route del fd00:10:244::/48 dev podwire0",
            "ip -6 route replace fd00:10:244::/48 dev podwire0 mtu 1300 proto 157",
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
            "nft delete table inet podwire",
            "nft flush ruleset",
            "nft flush chain inet podwire postrouting",
            "nft add element inet podwire nodes4 { 192.168.1.13 }",
            "nft add rule inet podwire guard accept",
            &format!("rm {links}/podwire0-egress"),
            &format!("rm {links}/up0_5-ingress"),
            "ip link del up0.5; ip link add up0.5 type veth peer up0.5p; ip link set up0.5 up",
        ] {
            run(damage);
            assert_ne!(observe(&mut kernel).await, wanted(), "not seen: {damage}");
            apply(&mut kernel, &actions(&wanted())).await;
            assert_eq!(observe(&mut kernel).await, wanted(), "not healed: {damage}");
        }
    });
}

#[test]
fn a_detached_link_is_seen_and_healed() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let pin = Pins(bpffs.to_owned()).link(HOST_DEVICE, Hook::Egress);
        run(&format!("bpftool link detach pinned {}", pin.display()));
        let key = (HOST_DEVICE.to_owned(), LinkHook::Egress);
        assert_eq!(observe(&mut kernel).await.links[&key], "");
        apply(&mut kernel, &actions(&wanted())).await;
        assert_eq!(observe(&mut kernel).await, wanted());
    });
}

#[test]
fn routes_of_others_are_not_ours() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let foreign = [
            "route add blackhole 10.9.0.0/26 proto 80",
            "route add 10.8.0.0/24 dev up0.5 proto 80",
            "route add 10.8.1.0/24 dev podwire0 proto 80",
            "-6 route add fd00:9::/64 dev up0.5 proto 80",
            // Also of our number: nobody owns one.
            "route add blackhole 10.9.1.0/26 proto 157",
            "route add 10.8.2.0/24 dev up0.5 proto 157",
            "route add 10.244.0.0/16 tos 4 dev podwire0 proto 157",
            "-6 route add blackhole fd00:9:1::/64 proto 157",
        ];
        for route in foreign {
            run(&format!("ip {route}"));
            assert_eq!(observe(&mut kernel).await, wanted(), "{route}");
        }
        let gone = "10.8.2.0/24".parse().unwrap();
        apply(&mut kernel, &[Action::RemoveRoute { destination: gone }]).await;
        assert!(run("ip route").contains("10.8.2.0/24 dev up0.5"), "of another device");
    });
}

#[test]
fn a_part_that_fails_does_not_hide_the_others() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let stranger = bpffs.join("links/stranger");
        let create = "type hash key 4 value 4 entries 8 name foreign";
        run(&format!("bpftool map create {} {create}", stranger.display()));
        run("ip route del 10.244.0.0/16");
        let observed = kernel.observe(&Questions::default()).await.unwrap();
        assert_eq!(observed.unknown.keys().collect::<Vec<_>>(), [&"link"]);
        assert!(observed.unknown["link"].contains("links/stranger"), "{:?}", observed.unknown);
        assert_eq!(observed.state.routes.len(), 1);
        assert_eq!(observed.state.pods, wanted().pods);
        fs::remove_file(stranger).unwrap();
        assert_eq!(observe(&mut kernel).await.links, wanted().links);
    });
}

#[test]
fn all_of_it_can_be_removed() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let state = observe(&mut kernel).await;
        let mut removals = vec![Action::RemoveNft];
        removals.extend(
            state.links.into_keys().map(|(interface, hook)| Action::Detach { interface, hook }),
        );
        removals.extend(
            state.routes.into_keys().map(|destination| Action::RemoveRoute { destination }),
        );
        removals.extend(state.addresses.into_iter().map(Action::RemoveAddress));
        removals.extend(state.devices.into_keys().map(|name| Action::RemoveDevice { name }));
        removals.push(Action::RemoveNodes(state.nodes.iter().map(|(prefix, _)| prefix).collect()));
        removals.push(Action::RemovePod { address: [10, 244, 1, 2].map_to(), generation: 1 });
        apply(&mut kernel, &removals).await;
        let sysctls = wanted().sysctls;
        let empty = State { sysctls, config: Some(config()), ..State::default() };
        assert_eq!(observe(&mut kernel).await, empty);
        // And again, when nothing is there.
        apply(&mut kernel, &removals).await;
    });
}

#[test]
fn a_late_removal_leaves_the_next_owner_of_an_address() {
    isolated(async |bpffs| {
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let address = [10, 244, 1, 2].map_to();
        kernel.apply(&Action::PutPod { address, entry: pod(2) }).await.unwrap();
        kernel.apply(&Action::RemovePod { address, generation: 1 }).await.unwrap();
        assert_eq!(observe(&mut kernel).await.pods, [(address.into(), pod(2))].into());
        kernel.apply(&Action::RemovePod { address, generation: 2 }).await.unwrap();
        assert!(observe(&mut kernel).await.pods.is_empty());
        kernel.apply(&Action::RemovePod { address, generation: 2 }).await.unwrap();
    });
}

#[test]
fn a_vxlan_device_on_the_same_port_is_named() {
    isolated(async |bpffs| {
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        run("ip link add other type vxlan external dstport 8472");
        let device = Device::Tunnel { port: 8472, mtu: 1450 };
        let put = Action::PutDevice { name: TUNNEL_DEVICE.to_owned(), device };
        let error = kernel.apply(&put).await.unwrap_err().to_string();
        assert!(error.contains("8472") && error.contains("--vxlan-port"), "{error}");
    });
}

#[test]
fn counters_are_summed_over_the_processors() {
    isolated(async |bpffs| {
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let counters = kernel.counters().unwrap();
        assert!(counters.values().all(|stats| stats.packets == 0));
        let path = dataplane_core::abi::Path::HostToPod as u32;
        assert!(counters.contains_key(&path));
    });
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_named() {
    isolated(async |_| {
        assert_eq!(problems(), Vec::<String>::new());
        run("nft add table ip filter && nft add chain ip filter FORWARD \
             '{ type filter hook forward priority 0; policy drop; }'");
        let problems_found = problems();
        assert_eq!(problems_found.len(), 1);
        assert!(problems_found[0].contains("iptables -I FORWARD"), "{problems_found:?}");
        run("nft insert rule ip filter FORWARD iifname podwire0 accept");
        assert_eq!(problems(), Vec::<String>::new());
    });
}

#[test]
fn the_peer_of_the_host_device_is_nothing_of_its_own() {
    assert_eq!(HOST_DEVICE_PEER, format!("{HOST_DEVICE}p"));
}
