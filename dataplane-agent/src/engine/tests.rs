//! The engine with a kernel that tests interfere with.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use cni_shim::names::Attachment;
use cni_shim::protocol::{AddCall, Added, DelCall, Failure, Source};
use dataplane_core::abi::{Addr, PodEntry};
use tempfile::TempDir;

use super::*;
use crate::fake::{self, FakeKernel};
use crate::kernel::{Action, AddrKey, HOST_DEVICE, LinkHook, TUNNEL_DEVICE};
use crate::store::{make_plugin_locks, plugin_lock_number};

mod abandoned;
mod big_tcp;
mod delegated;
mod gc;
mod running;

struct Node {
    directory: TempDir,
    kernel: FakeKernel,
    engine: Engine<FakeKernel>,
}

fn setup(directory: &TempDir, boot_time_ns: u64) -> Setup {
    let socket = directory.path().join("agent.sock");
    make_plugin_locks(&socket).unwrap();
    Setup {
        sourced: Sourced::default(),
        model: fake::model(),
        store: Store::open(directory.path()).unwrap(),
        socket,
        boot_time_ns,
        host_problems: Vec::new,
        install_problems: watch::channel(Vec::new()).1,
        vitals: watch::Sender::new(Vitals::starting()),
        big_tcp: watch::Sender::default(),
    }
}

impl Node {
    async fn new() -> Self {
        let mut node = Self::unsettled().await;
        assert!(node.engine.reconcile().await, "{:?}", node.engine.failures);
        node
    }

    async fn unsettled() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::new();
        let engine = Engine::start(kernel.clone(), setup(&directory, 1_000)).await.unwrap();
        Self { directory, kernel, engine }
    }

    /// As after SIGKILL: the files and the kernel stay.
    async fn restart(self) -> Self {
        let Self { directory, kernel, engine } = self;
        drop(engine);
        let engine = Engine::start(kernel.clone(), setup(&directory, 1_000)).await.unwrap();
        Self { directory, kernel, engine }
    }

    /// Makes the interface as the plugin does, then asks.
    async fn add(&mut self, container: &str, ifindex: u32) -> Result<Added, Failure> {
        self.add_from(Source::Pools(Vec::new()), container, ifindex).await
    }

    async fn add_from(
        &mut self,
        source: Source,
        container: &str,
        ifindex: u32,
    ) -> Result<Added, Failure> {
        let call = AddCall { source, ..call(container, ifindex) };
        let name = call.attachment.host_ifname();
        {
            let mut kernel = self.kernel.lock();
            kernel.add_interface(fake::link(&name, ifindex, 1_450, &[]));
            let links = &mut kernel.observed.state.links;
            links.insert((name.clone(), LinkHook::Ingress), "pw_from_pod".to_owned());
            links.insert((name, LinkHook::Egress), "pw_to_pod".to_owned());
        }
        self.engine.add(&call).await
    }

    fn entry(&self, address: &IpAddr) -> Option<PodEntry> {
        let key = AddrKey::from(Addr::from(*address));
        self.kernel.lock().observed.state.pods.get(&key).copied()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.directory.path().join("attachments")).unwrap().count()
    }

    async fn put_back(&mut self) -> Vec<(&'static str, u64)> {
        self.kernel.lock().log.clear();
        assert!(self.engine.reconcile().await, "{:?}", self.engine.failures);
        self.engine.drift.iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}

fn attachment(container: &str) -> Attachment {
    Attachment { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}

fn call(container: &str, ifindex: u32) -> AddCall {
    AddCall {
        attachment: attachment(container),
        network: "net".to_owned(),
        netns: String::new(),
        pod: String::new(),
        ifindex,
        host_mac: [2, 0, 0, 0, 0, 1],
        pod_mac: [2, 0, 0, 0, 0, 2],
        program_ids: [100, 101],
        source: Source::Pools(Vec::new()),
    }
}

fn del(container: &str) -> DelCall {
    DelCall { attachment: attachment(container), lease_freed: false }
}

#[tokio::test]
async fn sets_up_a_bare_node_and_then_rests() {
    let mut node = Node::new().await;
    {
        let kernel = node.kernel.lock();
        let state = &kernel.observed.state;
        assert!(state.config.is_some() && state.nft.is_some());
        assert_eq!(state.routes.len(), 2);
        assert_eq!(state.links.len(), 3);
    }
    assert_eq!(node.put_back().await, []);
    assert_eq!(node.kernel.lock().log, []);
}

#[tokio::test]
async fn each_action_may_fail_once() {
    let mut node = Node::unsettled().await;
    node.kernel.lock().flaky = true;
    for _ in 0..4 {
        if node.engine.reconcile().await {
            return;
        }
        assert!(!node.engine.failures.is_empty());
    }
    panic!("{:?}", node.engine.failures);
}

#[tokio::test]
async fn one_kind_that_fails_does_not_hold_up_the_others() {
    let mut node = Node::unsettled().await;
    node.kernel.lock().failing.insert("nftables");
    assert!(!node.engine.reconcile().await);
    assert!(node.engine.failures[0].contains("nftables table"), "{:?}", node.engine.failures);
    assert!(node.kernel.lock().observed.state.config.is_some());
    let failure = node.add("c1", 20).await.unwrap_err();
    assert_eq!(failure.code, 11);
    assert!(failure.details.contains("nftables table"), "{failure}");
    node.kernel.lock().failing.clear();
    assert!(node.engine.reconcile().await);
    assert!(node.engine.drift.is_empty());
    node.add("c1", 20).await.unwrap();
}

#[tokio::test]
async fn what_somebody_undoes_at_once_is_named() {
    let mut node = Node::unsettled().await;
    node.kernel.lock().undone.insert("route");
    assert!(!node.engine.reconcile().await);
    let failure = &node.engine.failures[0];
    assert!(failure.contains("(route 10.244.0.0/16, route fd00:10:244::/48)"), "{failure}");
}

#[tokio::test]
async fn a_part_that_cannot_be_seen_is_left_alone_and_named() {
    let mut node = Node::new().await;
    {
        let mut kernel = node.kernel.lock();
        kernel.observed.unknown.insert("nftables", "nft: broken library".to_owned());
        kernel.observed.state.nft = None;
        kernel.observed.state.routes.pop_first();
        kernel.log.clear();
    }
    assert!(!node.engine.reconcile().await);
    assert_eq!(node.kernel.lock().observed.state.routes.len(), 2, "the rest is healed");
    assert_eq!(node.kernel.lock().log.len(), 1, "unknown is not missing");
    let status = node.engine.status().await;
    assert_eq!((status.problems, status.settled), (vec!["nft: broken library".into()], false));
    assert_eq!(status.peers.len(), 2);
    node.add("c1", 20).await.unwrap();
    node.kernel.lock().observed.unknown.clear();
    assert!(node.engine.reconcile().await);
    assert!(node.kernel.lock().observed.state.nft.is_some());
    node.kernel.lock().observed.unknown.insert("pod", "no map".to_owned());
    let Node { directory, kernel, engine } = node;
    drop(engine);
    let error = Engine::start(kernel, setup(&directory, 1_000)).await.err().unwrap();
    assert_eq!(error.to_string(), "take over the pods: no map");
}

#[tokio::test]
async fn what_somebody_removes_is_put_back_and_counted() {
    let mut node = Node::new().await;
    {
        let mut kernel = node.kernel.lock();
        let state = &mut kernel.observed.state;
        state.routes.pop_first();
        state.nodes = state.nodes.iter().skip(1).collect();
        state.nft = None;
        state.links.remove(&("eth0".to_owned(), LinkHook::Ingress));
        state.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    }
    let drift = node.put_back().await;
    let want = [("link", 1), ("nftables", 1), ("node", 1), ("route", 1), ("sysctl", 1)];
    assert_eq!(drift, want);
    node.kernel.lock().remove_interface(HOST_DEVICE);
    node.kernel.lock().remove_interface(TUNNEL_DEVICE);
    let drift = node.put_back().await;
    assert!(drift.contains(&("device", 2)), "{drift:?}");
    assert!(drift.contains(&("address", 2)), "{drift:?}");
    let host = node.kernel.lock().observed.interfaces[HOST_DEVICE].ifindex;
    let gateway = node.entry(&"10.244.1.1".parse().unwrap()).unwrap();
    assert_eq!(gateway.ifindex, host, "entries name the new device");
}

#[tokio::test]
async fn the_node_file_changes_and_nothing_counts_as_drift() {
    let mut node = Node::new().await;
    let mut nodes = fake::model().nodes;
    nodes.pop();
    node.engine.take_nodes(Ok(nodes));
    assert_eq!(node.put_back().await, []);
    assert_eq!(node.kernel.lock().log.len(), 4, "entries, two neighbours, the nftables table");
    let error = crate::nodes::parse("n".as_ref(), "", "a", &Default::default()).unwrap_err();
    node.engine.take_nodes(Err(error));
    assert_eq!(node.engine.model.nodes.len(), 2, "the last good state stays");
    assert!(node.engine.status().await.problems[0].starts_with("n: node: no node"));
    node.engine.take_nodes(Ok(fake::model().nodes));
    assert_eq!(node.engine.status().await.problems, Vec::<String>::new());
}

#[tokio::test]
async fn the_status_of_a_large_cluster_is_a_message() {
    let mut node = Node::new().await;
    let mut nodes = fake::model().nodes;
    for n in 0..5_000_u32 {
        let (a, b) = (n / 200, n % 200 + 20);
        nodes.push(Arc::new(crate::model::Node {
            name: format!("node-{n}.example.org"),
            addresses: vec![
                format!("192.168.{}.{b}", a + 2).parse().unwrap(),
                format!("fd00:1::{a}:{b}").parse().unwrap(),
            ],
            pod_cidrs: vec![
                format!("10.{}.{b}.0/24", a + 10).parse().unwrap(),
                format!("fd00:10:{a}:{b}::/64").parse().unwrap(),
            ],
        }));
    }
    node.engine.take_nodes(Ok(nodes));
    node.engine.compiled = crate::compile::compile(&node.engine.model, &node.engine.observed);
    let reply = node.engine.status_reply().await;
    let bytes = cni_shim::protocol::encode(&reply).unwrap();
    assert!(bytes.len() > 1 << 20, "{}", bytes.len());
    assert_eq!(cni_shim::protocol::read::<Reply>(&mut bytes.as_slice()).unwrap(), reply);
}

#[tokio::test]
async fn the_status_tells_of_ways_as_they_are_in_the_maps() {
    let mut node = Node::new().await;
    let before = node.engine.status().await.peers;
    for route in node.kernel.lock().observed.peer_routes.values_mut() {
        Arc::make_mut(route).mtu = Some(1_400);
    }
    assert_eq!(node.engine.status().await.peers, before, "nothing was put yet");
    assert!(node.engine.reconcile().await);
    assert_ne!(node.engine.status().await.peers, before);
}

#[tokio::test]
async fn an_mtu_that_is_too_small_for_ipv6_is_named() {
    let mut node = Node::new().await;
    node.kernel.lock().observed.interfaces.get_mut("eth0").unwrap().mtu = 1_300;
    assert!(node.engine.reconcile().await);
    let wanted = "the MTU of pods would be 1250, and IPv6 needs 1280: raise that of the uplink \
                  (eth0) from 1300 to 1330 at least";
    let problems = node.engine.status().await.problems;
    assert!(problems.len() == 1 && problems[0].starts_with(wanted), "{problems:?}");
    let failure = node.add("c1", 20).await.unwrap_err();
    assert!(failure.code == 11 && failure.details.starts_with(wanted), "{failure}");
    node.kernel.lock().observed.interfaces.get_mut("eth0").unwrap().mtu = 1_330;
    assert!(node.engine.reconcile().await);
    assert_eq!(node.engine.status().await.problems, Vec::<String>::new());
    node.add("c1", 20).await.unwrap();
}

#[tokio::test]
async fn an_uplink_that_moves_takes_its_program_along() {
    let mut node = Node::new().await;
    {
        let mut kernel = node.kernel.lock();
        let old = kernel.observed.interfaces.get_mut("eth0").unwrap();
        let addresses = std::mem::take(&mut old.addresses);
        kernel
            .add_interface(crate::kernel::Link { addresses, ..fake::link("eth1", 9, 9_000, &[]) });
    }
    assert_eq!(node.put_back().await, []);
    let links = node.kernel.lock().observed.state.links.clone();
    assert!(links.contains_key(&("eth1".to_owned(), LinkHook::Ingress)));
    assert!(!links.contains_key(&("eth0".to_owned(), LinkHook::Ingress)));
}

#[tokio::test]
async fn add_and_del() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    let text: Vec<String> = added.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((text, added.mtu), (vec!["10.244.1.2".into(), "fd00:10:244:1::2".into()], 1_450));
    for address in &added.addresses {
        assert_eq!(node.entry(address).unwrap().ifindex, 20);
    }
    assert_eq!(node.files(), 1);
    assert_eq!(node.put_back().await, []);
    assert_eq!(node.kernel.lock().log, [], "the pod is part of what is wanted");
    node.engine.del(&del("c1")).await.unwrap();
    node.engine.del(&del("c1")).await.unwrap();
    assert_eq!((node.entry(&added.addresses[0]), node.files()), (None, 0));
    assert_eq!(node.put_back().await, []);
}

#[tokio::test]
async fn a_pod_that_dies_at_once_is_not_drift() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    node.kernel.lock().remove_interface(&attachment("c1").host_ifname());
    assert_eq!(node.put_back().await, []);
    assert_eq!(node.entry(&added.addresses[0]), None);
}

#[tokio::test]
async fn add_again() {
    let mut node = Node::new().await;
    let first = node.add("c1", 20).await.unwrap();
    let before = node.entry(&first.addresses[0]).unwrap();
    assert_eq!(node.engine.add(&call("c1", 20)).await.unwrap(), first, "the reply was lost");
    assert_eq!(node.entry(&first.addresses[0]).unwrap(), before);
    let failure = node.engine.add(&call("c1", 21)).await.unwrap_err();
    assert_eq!(failure.code, 101, "{failure}");
    let name = attachment("c1").host_ifname();
    node.kernel.lock().remove_interface(&name);
    assert_eq!(node.add("c1", 22).await.unwrap(), first, "the successor of a dead interface");
    let after = node.entry(&first.addresses[0]).unwrap();
    assert!(after.ifindex == 22 && after.generation > before.generation);
    assert_eq!(node.files(), 1);
}

#[tokio::test]
async fn an_add_that_fails_leaves_nothing() {
    let mut node = Node::new().await;
    let other = AddCall { program_ids: [100, 7], ..call("c1", 20) };
    assert_eq!(node.engine.add(&other).await.unwrap_err().code, 11);
    assert_eq!(node.engine.add(&call("", 20)).await.unwrap_err().code, 6);
    node.kernel.lock().failing.insert("pod");
    assert_eq!(node.add("c1", 20).await.unwrap_err().code, 100);
    node.kernel.lock().failing.clear();
    node.engine.del(&del("c1")).await.unwrap();
    assert_eq!((node.files(), node.engine.ipam.usage()[0].used), (0, 0));
}

#[tokio::test]
async fn an_exhausted_pool_has_its_code() {
    let mut node = Node::new().await;
    let mut nodes = fake::model().nodes;
    Arc::make_mut(&mut nodes[0]).pod_cidrs = vec!["10.244.1.0/30".parse().unwrap()];
    node.engine.take_nodes(Ok(nodes));
    node.add("c1", 20).await.unwrap();
    let failure = node.add("c2", 21).await.unwrap_err();
    assert_eq!(failure.code, 50);
    assert!(failure.details.contains("all 1 addresses of 10.244.1.0/30"), "{failure}");
    let problems = node.engine.status().await.problems;
    assert!(problems.iter().any(|problem| problem.contains("1 of 1 addresses")), "{problems:?}");
}

#[tokio::test]
async fn a_late_del_does_not_touch_the_next_owner() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    let mut stolen = node.entry(&added.addresses[0]).unwrap();
    stolen.generation += 1;
    let key = AddrKey::from(Addr::from(added.addresses[0]));
    node.kernel.lock().observed.state.pods.insert(key, stolen);
    node.engine.del(&del("c1")).await.unwrap();
    assert_eq!(node.entry(&added.addresses[0]), Some(stolen));
}

#[tokio::test]
async fn takes_everything_over_without_detaching() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    let before = node.entry(&added.addresses[0]).unwrap();
    node.engine.reconcile().await;
    let mut node = node.restart().await;
    assert_eq!(node.put_back().await, []);
    assert_eq!(node.kernel.lock().log, []);
    let second = node.add("c2", 21).await.unwrap();
    assert_ne!(second.addresses, added.addresses);
    let after = node.entry(&second.addresses[0]).unwrap();
    assert!(after.generation > before.generation);
    node.engine.del(&del("c2")).await.unwrap();
    let mut node = node.restart().await;
    assert!(node.engine.reconcile().await);
    node.engine.del(&del("c1")).await.unwrap();
    assert_eq!(node.files(), 0);
}

#[tokio::test]
async fn an_unreadable_file_keeps_its_pod_going() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    let name = attachment("c1").host_ifname();
    fs::write(node.engine.store.path(&name), "{").unwrap();
    let mut node = node.restart().await;
    assert_eq!(node.put_back().await, []);
    assert_eq!(node.entry(&added.addresses[0]).unwrap().ifindex, 20);
    let problems = node.engine.status().await.problems;
    assert!(problems[0].contains(&name) && problems[0].contains("not an attachment"));
    let other = node.add("c2", 21).await.unwrap();
    assert_ne!(other.addresses, added.addresses);
    node.engine.del(&del("c1")).await.unwrap();
    assert_eq!((node.entry(&added.addresses[0]), node.files()), (None, 1));
    assert_eq!(node.engine.status().await.problems, Vec::<String>::new());
}

#[tokio::test]
async fn the_sweep_frees_after_two_looks_and_not_under_the_plugins_lock() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    node.add("c2", 21).await.unwrap();
    let name = attachment("c1").host_ifname();
    node.kernel.lock().remove_interface(&name);
    node.engine.link_removed(20, &name).await;
    assert_eq!(node.entry(&added.addresses[0]), None, "the entry goes at once");
    assert_eq!(node.files(), 2, "the reservation does not");
    node.engine.sweep().await;
    assert_eq!(node.files(), 2);
    let lock = crate::store::try_plugin_lock(&node.engine.socket, &name).unwrap().unwrap();
    node.engine.sweep().await;
    assert_eq!(node.files(), 2);
    drop(lock);
    node.engine.sweep().await;
    assert_eq!((node.files(), node.engine.ipam.usage()[0].used), (1, 1));
    let links = node.kernel.lock().observed.state.links.clone();
    assert!(!links.keys().any(|(interface, _)| *interface == name), "its pins are gone");
    let other = attachment("c2").host_ifname();
    assert!(links.contains_key(&(other, LinkHook::Ingress)));
    assert_eq!(node.put_back().await, []);
}

#[tokio::test]
async fn one_sweep_frees_also_what_shares_a_lock() {
    let number = |container: &str| plugin_lock_number(&attachment(container).host_ifname());
    let twin = (2..).map(|n| format!("c{n}")).find(|c| number(c) == number("c1")).unwrap();
    let mut node = Node::new().await;
    for (container, ifindex) in [("c1", 20), (&twin, 21)] {
        node.add(container, ifindex).await.unwrap();
        node.kernel.lock().remove_interface(&attachment(container).host_ifname());
    }
    node.engine.sweep().await;
    assert_eq!(node.files(), 2);
    node.engine.sweep().await;
    assert_eq!(node.files(), 0);
}

#[tokio::test]
async fn a_pod_in_the_making_is_left_alone() {
    let mut node = Node::new().await;
    let name = attachment("c9").host_ifname();
    let key = (name.clone(), LinkHook::Ingress);
    node.kernel.lock().add_interface(fake::link(&name, 30, 1_500, &[]));
    node.kernel.lock().observed.state.links.insert(key.clone(), "pw_from_pod".to_owned());
    for _ in 0..3 {
        node.engine.sweep().await;
        assert_eq!(node.put_back().await, []);
    }
    assert!(node.kernel.lock().observed.state.links.contains_key(&key));
}

#[tokio::test]
async fn an_old_event_does_not_touch_a_new_interface() {
    let mut node = Node::new().await;
    let added = node.add("c1", 20).await.unwrap();
    node.engine.link_removed(19, &attachment("c1").host_ifname()).await;
    assert!(node.entry(&added.addresses[0]).is_some());
}

#[tokio::test]
async fn foreign_entries_are_removed() {
    let mut node = Node::new().await;
    let foreign = fake::attached("x", 20, "10.244.1.77", 5).entry();
    let address: IpAddr = "10.244.1.77".parse().unwrap();
    let key = AddrKey::from(Addr::from(address));
    node.kernel.lock().observed.state.pods.insert(key, foreign);
    assert_eq!(node.put_back().await, [("pod", 1)]);
    assert_eq!(node.entry(&address), None);
    let removed = Action::RemovePod { address: address.into(), generation: 5 };
    assert_eq!(node.kernel.lock().log, [removed]);
}
