//! A network namespace with the devices of a node, the loaded object, and its maps filled by hand.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use dataplane_core::abi::config::{GATEWAY_MAC, TUNNEL_MAC};
use dataplane_core::abi::{
    ABI_VERSION, Addr, Config, Counter, Mac, Near, NodeEntry, PodEntry, Stats, names,
};
use dataplane_core::ip::Ip;
use dataplane_core::near::place;
use ipnet::IpNet;
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::unistd::Pid;
use tests::bpf::context;

/// MAC of the neighbour behind the uplink.
pub(super) const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 12];
/// The address that has that MAC.
pub(super) const NEIGHBOUR: &str = "192.168.1.12";

/// What a program did with a packet.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct Outcome {
    pub(super) action: i32,
    pub(super) packet: Vec<u8>,
    /// The counters that changed, by name, in packets.
    pub(super) counted: BTreeMap<&'static str, u64>,
}

/// A device of the fixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) ifindex: u32,
    pub(super) mac: Mac,
}

pub(super) struct Fixture {
    ebpf: Ebpf,
    pub(super) host: Device,
    pub(super) uplink: Device,
    pub(super) tunnel: Device,
    pub(super) pods: [Device; 2],
    pub(super) config: Config,
    pub(super) pod_entries: Vec<(Addr, PodEntry)>,
    pub(super) node_entries: Vec<(IpNet, NodeEntry)>,
}

impl Fixture {
    /// Makes the namespace for the calling thread, which keeps it until it ends: one test, one thread.
    pub(super) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        for name in ["podwire0", "uplink", "tunnel", "pod-a", "pod-b"] {
            let peer = format!("{name}-p");
            ip(&["link", "add", name, "type", "veth", "peer", "name", &peer]);
            ip(&["link", "set", &peer, "up"]);
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0")
                .expect("sysctl");
            ip(&["link", "set", name, "up"]);
        }
        ip(&["address", "add", "192.168.1.11/24", "dev", "uplink"]);
        let mac = mac_text(NEIGHBOUR_MAC);
        ip(&["neighbour", "add", NEIGHBOUR, "lladdr", &mac, "dev", "uplink", "nud", "permanent"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("ip_forward");
        let mut fixture = Self {
            ebpf: Ebpf::load(&object()).expect("the object loads"),
            host: device("podwire0"),
            uplink: device("uplink"),
            tunnel: device("tunnel"),
            pods: [device("pod-a"), device("pod-b")],
            config: empty_config(),
            pod_entries: Vec::new(),
            node_entries: Vec::new(),
        };
        fixture.fill();
        for name in names::PROGRAMS {
            fixture.load(name);
        }
        fixture
    }

    /// Again when a signal came meanwhile: the verifier gives up with EAGAIN then.
    fn load(&mut self, name: &str) {
        let program = self.program(name);
        let mut loaded = program.load();
        for _ in 0..4 {
            match &loaded {
                Err(ProgramError::LoadError { io_error, .. })
                    if io_error.kind() == ErrorKind::WouldBlock =>
                {
                    loaded = program.load();
                }
                _ => break,
            }
        }
        loaded.expect("the verifier takes every program");
    }

    fn fill(&mut self) {
        let config = Config {
            abi_version: ABI_VERSION,
            flags: Config::ACCEPT_DIRECT | Config::ALL_NEAR,
            host_ifindex: self.host.ifindex,
            tunnel_ifindex: self.tunnel.ifindex,
            tunnel_vni: 7,
            tunnel_port: 8472,
            host_mac: self.host.mac,
            tunnel_mac: TUNNEL_MAC,
            node_ipv4: address("192.168.1.11"),
            ..empty_config()
        };
        self.set_config(config);
        for (number, ips) in
            [["10.244.1.2", "fd00:10:244:1::2"], ["10.244.1.3", "fd00:10:244:1::3"]]
                .iter()
                .enumerate()
        {
            for ip in ips {
                self.put_pod(ip, self.pods[number].ifindex, PodEntry::POD, pod_mac(number));
            }
        }
        for ip in ["10.244.1.1", "fd00:10:244:1::1"] {
            self.put_pod(ip, self.host.ifindex, PodEntry::HOST, self.host.mac);
        }
        for (prefix, node, kind) in [
            ("10.244.0.0/16", "::", NodeEntry::CLUSTER),
            ("fd00:10:244::/48", "::", NodeEntry::CLUSTER),
            ("10.244.1.0/24", "::", NodeEntry::OWN),
            ("fd00:10:244:1::/64", "::", NodeEntry::OWN),
            ("10.244.2.0/24", NEIGHBOUR, NodeEntry::DIRECT),
            ("fd00:10:244:2::/64", NEIGHBOUR, NodeEntry::DIRECT),
            ("10.244.3.0/24", "192.168.1.13", NodeEntry::TUNNEL),
            ("fd00:10:244:3::/64", "192.168.1.13", NodeEntry::TUNNEL),
            ("10.244.4.0/24", "203.0.113.4", NodeEntry::DIRECT),
            ("10.244.5.0/24", NEIGHBOUR, NodeEntry::TUNNEL),
            ("fd00:10:244:5::/64", NEIGHBOUR, NodeEntry::TUNNEL),
            ("192.168.1.11/32", "::", NodeEntry::NODE),
            ("192.168.1.12/32", "::", NodeEntry::NODE),
        ] {
            self.put_node(prefix, node, kind);
        }
    }

    pub(super) fn put_node(&mut self, prefix: &str, node: &str, kind: u32) {
        let entry = NodeEntry { node: address(node), kind, mtu: 1500 };
        let prefix: IpNet = prefix.parse().expect("a prefix");
        let bits = u32::from(prefix.prefix_len()) + if prefix.addr().is_ipv4() { 96 } else { 0 };
        let key = Key::new(bits, Addr::from(prefix.addr()));
        let mut map: LpmTrie<_, Addr, NodeEntry> =
            LpmTrie::try_from(self.ebpf.map_mut(names::MAP_NODES).expect("map")).expect("trie");
        map.insert(&key, entry, 0).expect("insert");
        self.node_entries.push((prefix, entry));
    }

    fn put_pod(&mut self, ip: &str, ifindex: u32, kind: u32, mac: Mac) {
        let entry =
            PodEntry { ifindex, kind, mac, gateway_mac: GATEWAY_MAC, reserved: 0, generation: 1 };
        let mut map: HashMap<_, Addr, PodEntry> =
            HashMap::try_from(self.ebpf.map_mut(names::MAP_PODS).expect("map")).expect("hash");
        map.insert(address(ip), entry, 0).expect("insert");
        self.set_near(ip, Near { address: address(ip), entry });
        self.pod_entries.push((address(ip), entry));
    }

    fn set_near(&mut self, ip: &str, near: Near) {
        let mut map: Array<_, Near> =
            Array::try_from(self.ebpf.map_mut(names::MAP_NEAR).expect("map")).expect("array");
        let at = u32::try_from(place(&ip_of(ip))).expect("a place");
        map.set(at, near, 0).expect("set");
    }

    /// Has another address take the place of each of these, which are in `pw_pods` alone from now on.
    pub(super) fn displace(&mut self, ips: &[&str]) {
        for ip in ips {
            let entry = PodEntry { ifindex: 1, ..self.pod_entries[0].1 };
            self.set_near(ip, Near { address: address("203.0.113.99"), entry });
        }
        let flags = self.config.flags & !Config::ALL_NEAR;
        self.set_config(Config { flags, ..self.config });
    }

    /// Keeps the calling thread where it is: each processor remembers for itself.
    pub(super) fn stay_on_a_processor(&self) {
        let mut set = CpuSet::new();
        set.set(sched_getcpu().expect("a processor")).expect("its place");
        sched_setaffinity(Pid::from_raw(0), &set).expect("affinity");
    }

    pub(super) fn remove_pod(&mut self, ip: &str) {
        let mut map: HashMap<_, Addr, PodEntry> =
            HashMap::try_from(self.ebpf.map_mut(names::MAP_PODS).expect("map")).expect("hash");
        map.remove(&address(ip)).expect("remove");
        let entry = PodEntry { ifindex: 0, ..self.pod_entries[0].1 };
        self.set_near(ip, Near { address: Addr::UNSPECIFIED, entry });
        self.pod_entries.retain(|(addr, _)| *addr != address(ip));
    }

    pub(super) fn set_config(&mut self, config: Config) {
        let mut map: Array<_, Config> =
            Array::try_from(self.ebpf.map_mut(names::MAP_CONFIG).expect("map")).expect("array");
        map.set(0, config, 0).expect("set");
        self.config = config;
    }

    /// Runs a program on one packet that arrived on, or leaves by, a device.
    pub(super) fn run(&mut self, program: &str, ifindex: u32, packet: &[u8]) -> Outcome {
        let before = self.counters();
        let context = context(ifindex);
        let mut out = vec![0; packet.len() + 256];
        let result = self
            .program(program)
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .expect("a test run");
        out.truncate(result.data_size_out as usize);
        let counted = self
            .counters()
            .into_iter()
            .map(|(name, packets)| (name, packets - before[name]))
            .filter(|(_, packets)| *packets != 0)
            .collect();
        Outcome { action: result.return_value.cast_signed(), packet: out, counted }
    }

    /// A program, for a tail call.
    pub(super) fn descriptor(&mut self, name: &str) -> OwnedFd {
        let descriptor = self.program(name).fd().expect("it is loaded");
        descriptor.as_fd().try_clone_to_owned().expect("a descriptor")
    }

    fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).expect("a program").try_into().expect("a classifier")
    }

    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let map: PerCpuArray<_, Stats> =
            PerCpuArray::try_from(self.ebpf.map(names::MAP_STATS).expect("map")).expect("array");
        Counter::all()
            .map(|counter| {
                let values = map.get(&counter.number(), 0).expect("a counter");
                (counter.name(), values.iter().map(|value| value.packets).sum())
            })
            .collect()
    }

    pub(super) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }
}

pub(super) fn pod_mac(number: usize) -> Mac {
    Mac::new([0x0a, 0, 0, 0, 0, u8::try_from(number).expect("few pods") + 2])
}

pub(super) fn address(text: &str) -> Addr {
    text.parse::<IpAddr>().expect("an address").into()
}

pub(super) fn ip_of(text: &str) -> Ip {
    Ip::from(&address(text))
}

/// The object as `cargo xtask build-ebpf` leaves it.
pub(super) fn object() -> Vec<u8> {
    let path = std::env::var("PODWIRE_BPF_OBJECT")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/podwire.o").into());
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{path}: {error}; run `cargo xtask build-ebpf` first");
    })
}

fn empty_config() -> Config {
    Config {
        abi_version: 0,
        flags: 0,
        host_ifindex: 0,
        tunnel_ifindex: 0,
        tunnel_vni: 0,
        tunnel_port: 0,
        host_mac: Mac::default(),
        tunnel_mac: Mac::default(),
        maps_version: 0,
        node_ipv4: Addr::UNSPECIFIED,
        node_ipv6: Addr::UNSPECIFIED,
    }
}

fn device(name: &str) -> Device {
    // `/sys/class/net` shows the namespace of its mount, so the kernel is asked by name instead.
    let output =
        Command::new("ip").args(["-j", "link", "show", name]).output().expect("ip runs").stdout;
    let links: serde_json::Value = serde_json::from_slice(&output).expect("JSON of ip");
    let mac = links[0]["address"].as_str().expect("a MAC");
    let mut octets = [0; 6];
    for (octet, text) in octets.iter_mut().zip(mac.split(':')) {
        *octet = u8::from_str_radix(text, 16).expect("hexadecimal");
    }
    let ifindex = links[0]["ifindex"].as_u64().expect("an index");
    Device { ifindex: u32::try_from(ifindex).expect("32 bits"), mac: Mac::new(octets) }
}

fn mac_text(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

pub(super) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}
