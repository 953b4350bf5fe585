//! A kernel for tests, and a small cluster to try things on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cni_shim::names::Attachment;
use dataplane_core::abi::names::PROGRAMS;
use dataplane_core::abi::{Mac, Stats};
use ipnet::IpNet;
use tokio::time::timeout;

use crate::kernel::{
    AGGREGATE_MAX, Action, AddrKey, Aggregates, Device, HOST_DEVICE, Hop, Kernel, KernelError,
    Link, Medium, Neighbour, Observed, PeerRoute, PeerRoutes, Questions, State, changed_aggregates,
};
use crate::model::{Attached, Encapsulation, Model, Network, Node};
use crate::plan::{describe, kind};

/// Makes a program of a script.
///
/// `install` writes it, not this process: a child that another thread has begun to start would hold the file open
/// for writing until it runs its program, and nobody could run the script before ("Text file busy").
pub(crate) fn write_program(path: &Path, script: &str) {
    let mut command = Command::new("install");
    command.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = command.spawn().unwrap();
    install.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}

/// Three nodes on one link; this one is `a`, its uplink `eth0`.
pub(crate) fn model() -> Model {
    let node = |name: &str, n: u8| {
        Arc::new(Node {
            name: name.to_owned(),
            addresses: vec![
                format!("192.168.1.1{n}").parse().unwrap(),
                format!("fd00:1::1{n}").parse().unwrap(),
            ],
            pod_cidrs: vec![
                format!("10.244.{n}.0/24").parse().unwrap(),
                format!("fd00:10:244:{n}::/64").parse().unwrap(),
            ],
        })
    };
    Model {
        network: Network {
            encapsulation: Encapsulation::Auto,
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:10:244::/48".parse().unwrap(),
            ],
            ..Network::default()
        },
        own_name: "a".to_owned(),
        nodes: vec![node("a", 1), node("b", 2), node("c", 3)],
        ..Model::default()
    }
}

/// What such a node has before the agent comes.
pub(crate) fn interfaces() -> Observed {
    let links = [
        link("lo", 1, 65_536, &["127.0.0.1/8", "::1/128"]),
        link("eth0", 2, 1_500, &["192.168.1.11/24", "fd00:1::11/64"]),
    ];
    let interfaces = links.into_iter().map(|link| (link.name.clone(), link)).collect();
    let peers = ["192.168.1.12", "192.168.1.13", "fd00:1::12", "fd00:1::13"];
    let on_link = |ip: &str| (ip.parse().unwrap(), route("eth0", None));
    Observed { interfaces, peer_routes: peers.map(on_link).into(), ..Observed::default() }
}

pub(crate) fn route(device: &str, gateway: Option<&str>) -> Arc<PeerRoute> {
    let gateway = gateway.map(|text| text.parse().unwrap());
    Arc::new(PeerRoute { hops: [Hop { device: device.to_owned(), gateway }].into(), mtu: None })
}

pub(crate) fn link(name: &str, ifindex: u32, mtu: u32, addresses: &[&str]) -> Link {
    let mac = Mac::new([2, 0, 0, 0, 0, u8::try_from(ifindex & 0xff).unwrap()]);
    let medium = if name == "lo" { Medium::Nothing } else { Medium::Ethernet };
    let addresses = addresses.iter().map(|text| text.parse::<IpNet>().unwrap()).collect();
    let alias = String::new();
    let name = name.to_owned();
    Link {
        name,
        alias,
        ifindex,
        mac,
        mtu,
        up: true,
        unused: false,
        medium,
        aggregates: Aggregates::default(),
        aggregates_max: AGGREGATE_MAX,
        addresses,
    }
}

pub(crate) fn attached(container: &str, ifindex: u32, address: &str, generation: u64) -> Attached {
    Attached {
        attachment: Attachment { container_id: container.to_owned(), ifname: "eth0".to_owned() },
        network: "net".to_owned(),
        netns: "/run/netns/x".to_owned(),
        pod: String::new(),
        ifindex,
        host_mac: [2, 0, 0, 0, 1, 1],
        pod_mac: [2, 0, 0, 0, 1, 2],
        addresses: vec![address.parse().unwrap()],
        generation,
        delegation: None,
    }
}

/// What an action does to a state.
pub(crate) fn change(state: &mut State, action: &Action) {
    match action.clone() {
        Action::PutDevice { name, device } => drop(state.devices.insert(name, device)),
        Action::RemoveDevice { name } => drop(state.devices.remove(&name)),
        Action::SetAggregates { interface, aggregates } => {
            state.aggregates.insert(interface, aggregates);
        }
        Action::AddAddress(net) => drop(state.addresses.insert(net)),
        Action::RemoveAddress(net) => drop(state.addresses.remove(&net)),
        Action::PutRoute { destination, route } => drop(state.routes.insert(destination, route)),
        Action::RemoveRoute { destination } => drop(state.routes.remove(&destination)),
        Action::PutNeighbour(neighbour) => drop(state.neighbours.insert(neighbour)),
        Action::RemoveNeighbour(neighbour) => drop(state.neighbours.remove(&neighbour)),
        Action::SetSysctl { path, value } => drop(state.sysctls.insert(path, value)),
        Action::PutNft(rules) => state.nft = Some(rules),
        Action::RemoveNft => state.nft = None,
        Action::Attach { interface, hook, program } => {
            state.links.insert((interface, hook), program);
        }
        Action::Detach { interface, hook } => drop(state.links.remove(&(interface, hook))),
        Action::PutConfig(config) => state.config = Some(config),
        Action::PutPod { address, entry } => drop(state.pods.insert(address.into(), entry)),
        Action::RemovePod { address, generation } => {
            let key = AddrKey::from(address);
            if state.pods.get(&key).is_some_and(|entry| entry.generation == generation) {
                state.pods.remove(&key);
            }
        }
        Action::PutNodes(rows) => state.nodes = state.nodes.iter().chain(rows.iter()).collect(),
        Action::RemoveNodes(prefixes) => {
            let rest = state.nodes.iter().filter(|(prefix, _)| !prefixes.contains(prefix));
            state.nodes = rest.collect();
        }
    }
}

/// A kernel that tests can look into and interfere with while the engine has it.
#[derive(Clone, Default)]
pub(crate) struct FakeKernel(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) observed: Observed,
    /// How often it was looked at.
    pub(crate) looks: usize,
    /// All that was done.
    pub(crate) log: Vec<Action>,
    /// Kinds of actions that fail.
    pub(crate) failing: BTreeSet<&'static str>,
    /// Kinds of actions that have no effect: somebody undoes them at once.
    pub(crate) undone: BTreeSet<&'static str>,
    /// Fails each action the first time.
    pub(crate) flaky: bool,
    /// How long a look takes.
    pub(crate) slow: Duration,
    tried: Vec<Action>,
}

impl FakeKernel {
    /// A node without anything of ours.
    pub(crate) fn new() -> Self {
        let inner = Inner { observed: interfaces(), ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    /// As a plugin or a person makes it.
    pub(crate) fn add_interface(&mut self, link: Link) {
        self.observed.interfaces.insert(link.name.clone(), link);
    }

    /// As the kernel does it: what stood on it goes too, but pins stay.
    pub(crate) fn remove_interface(&mut self, name: &str) {
        self.observed.interfaces.remove(name);
        let state = &mut self.observed.state;
        state.devices.remove(name);
        if name == HOST_DEVICE {
            state.addresses.clear();
            state.routes.clear();
        }
        for ((interface, _), program) in &mut state.links {
            if interface == name {
                program.clear();
            }
        }
    }

    fn apply(&mut self, action: &Action) -> Result<(), String> {
        if self.failing.contains(kind(action)) {
            return Err("injected".to_owned());
        }
        if self.flaky && !self.tried.contains(action) {
            self.tried.push(action.clone());
            return Err("injected once".to_owned());
        }
        self.check(action)?;
        if self.undone.contains(kind(action)) {
            return Ok(());
        }
        if let Action::PutDevice { name, device } = action {
            let next = self.observed.interfaces.values().map(|link| link.ifindex).max().unwrap();
            let (Device::Host { mtu } | Device::Tunnel { mtu, .. }) = device;
            let new = link(name, next + 1, *mtu, &[]);
            self.observed.interfaces.entry(name.clone()).or_insert(new).mtu = *mtu;
        }
        if let Action::SetAggregates { interface, aggregates } = action
            && let Some(link) = self.observed.interfaces.get_mut(interface)
        {
            link.aggregates = *aggregates;
        }
        if let Action::RemoveDevice { name } = action {
            self.remove_interface(name);
        }
        change(&mut self.observed.state, action);
        self.log.push(action.clone());
        Ok(())
    }

    /// What the kernel would refuse.
    fn check(&self, action: &Action) -> Result<(), String> {
        let needs = match action {
            Action::AddAddress(_) | Action::PutRoute { .. } => HOST_DEVICE,
            Action::Attach { interface, .. }
            | Action::SetAggregates { interface, .. }
            | Action::PutNeighbour(Neighbour { device: interface, .. }) => interface,
            Action::PutDevice { .. }
            | Action::RemoveDevice { .. }
            | Action::RemoveAddress(_)
            | Action::RemoveRoute { .. }
            | Action::RemoveNeighbour(_)
            | Action::SetSysctl { .. }
            | Action::PutNft(_)
            | Action::RemoveNft
            | Action::Detach { .. }
            | Action::PutConfig(_)
            | Action::PutPod { .. }
            | Action::RemovePod { .. }
            | Action::PutNodes(_)
            | Action::RemoveNodes(_) => return Ok(()),
        };
        match self.observed.interfaces.contains_key(needs) {
            true => Ok(()),
            false => Err(format!("no device {needs}")),
        }
    }
}

impl Kernel for FakeKernel {
    async fn observe(&mut self, questions: &Questions) -> Result<Observed, KernelError> {
        self.lock().looks += 1;
        let slow = self.lock().slow;
        if !slow.is_zero() {
            let _ = timeout(slow, std::future::pending::<()>()).await;
        }
        let mut observed = self.lock().observed.clone();
        if let Some(known) = &questions.nodes {
            observed.state.nodes = known.clone();
        }
        observed.state.aggregates = changed_aggregates(&observed.interfaces);
        observed.state.sysctls.retain(|path, _| questions.sysctls.contains(path));
        observed.peer_routes.retain(|peer, _| questions.peers.contains_key(peer));
        Ok(observed)
    }

    async fn ways(
        &mut self,
        peers: &BTreeMap<IpAddr, IpAddr>,
        _: &BTreeMap<String, Link>,
    ) -> Result<PeerRoutes, KernelError> {
        let mut routes = self.lock().observed.peer_routes.clone();
        routes.retain(|peer, _| peers.contains_key(peer));
        Ok(routes)
    }

    async fn apply(&mut self, action: &Action) -> Result<(), KernelError> {
        let result = self.lock().apply(action);
        result.map_err(|error| KernelError { what: describe(action), source: error.into() })
    }

    fn counters(&mut self) -> Result<BTreeMap<u32, Stats>, KernelError> {
        Ok([(1, Stats { packets: 5, bytes: 500 }), (34, Stats { packets: 1, bytes: 60 })].into())
    }

    fn program_ids(&mut self) -> Result<BTreeMap<String, u32>, KernelError> {
        Ok((100..).zip(PROGRAMS).map(|(id, name)| (name.to_owned(), id)).collect())
    }
}
