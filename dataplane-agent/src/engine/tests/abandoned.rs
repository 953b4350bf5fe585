//! What is left over: unfinished ADDs, leases of plugins that hang, agents that are restarted often.

use std::time::Duration;

use cni_shim::delegation::Delegation;
use cni_shim::error::{KERNEL, TRY_AGAIN};
use cni_shim::protocol::{Collected, GcCall};

use super::*;
use crate::store::try_plugin_lock;

/// Never ends.
const HANGS: &str = "exec tail -f /dev/null";

impl Node {
    /// As an ADD leaves it that is killed before its last step.
    fn unfinish(&self, name: &str) {
        let mut kernel = self.kernel.lock();
        let link = kernel.observed.interfaces.get_mut(name).unwrap();
        (link.up, link.unused) = (false, true);
    }

    fn has_interface(&self, name: &str) -> bool {
        self.kernel.lock().observed.interfaces.contains_key(name)
    }

    fn plugin(&self, name: &str, script: &str) -> Delegation {
        let plugin = self.directory.path().join(name);
        fake::write_program(&plugin, &format!("#!/bin/sh\n{script}\n"));
        let (path, args) = ("/cni".to_owned(), String::new());
        Delegation { plugin, path, args, config: serde_json::json!({ "name": "n" }) }
    }

    async fn leased(
        &mut self,
        container: &str,
        ifindex: u32,
        address: &str,
        delegation: Delegation,
    ) -> Result<Added, Failure> {
        let announced = Source::Announced(Box::new(delegation));
        self.add_from(announced, container, ifindex).await?;
        let leased = Source::Leased(vec![address.parse().unwrap()]);
        self.add_from(leased, container, ifindex).await
    }

    async fn gc_to_the_end(&mut self) -> (Collected, Collected) {
        let call = GcCall { network: "net".into(), valid: Vec::new() };
        let (begun, returns) = self.engine.collect(&call).await.unwrap();
        while let Some(freed) = self.engine.leases.next().await {
            self.engine.lease_freed(freed).await;
        }
        let ended = returns.end(begun.clone()).await;
        (begun, ended)
    }
}

#[tokio::test]
async fn the_sweep_removes_what_a_killed_add_left_and_no_living_pod() {
    let mut node = Node::new().await;
    let (killed, down, unasked) =
        (attachment("killed"), attachment("down"), attachment("unasked").host_ifname());
    let added = node.add("killed", 20).await.unwrap();
    let kept = node.add("down", 21).await.unwrap();
    let (killed, down) = (killed.host_ifname(), down.host_ifname());
    node.unfinish(&killed);
    node.kernel.lock().add_interface(fake::link(&unasked, 22, 1_500, &[]));
    node.unfinish(&unasked);
    // Somebody has set a living pod down.
    node.kernel.lock().observed.interfaces.get_mut(&down).unwrap().up = false;
    node.engine.sweep().await;
    assert!(node.has_interface(&killed) && node.has_interface(&unasked), "one look");
    let lock = try_plugin_lock(&node.engine.socket, &killed).unwrap().unwrap();
    node.engine.sweep().await;
    assert!(node.has_interface(&killed), "an ADD works at it");
    drop(lock);
    node.engine.sweep().await;
    assert!(!node.has_interface(&killed) && !node.has_interface(&unasked));
    assert!(node.has_interface(&down) && node.entry(&kept.addresses[0]).is_some());
    assert_eq!((node.entry(&added.addresses[0]), node.files()), (None, 1));
    assert_eq!(node.engine.ipam.usage()[0].used, 1);
}

#[tokio::test]
async fn an_agent_that_is_restarted_often_frees_too() {
    let mut node = Node::new().await;
    node.add("c1", 20).await.unwrap();
    node.kernel.lock().remove_interface(&attachment("c1").host_ifname());
    node.engine.sweep().await;
    let mut node = node.restart().await;
    assert!(node.engine.sweep_in > SWEEP_EVERY / 2, "two looks are as far apart as ever");
    assert_eq!(node.files(), 1);
    node.engine.sweep().await;
    assert_eq!(node.files(), 0);
    assert!(!node.directory.path().join("missing.json").exists());
    assert_eq!(node.restart().await.engine.sweep_in, Duration::ZERO);
}

#[tokio::test]
async fn a_del_is_the_end_of_what_a_sweep_has_missed() {
    let mut node = Node::new().await;
    node.add("c1", 20).await.unwrap();
    node.kernel.lock().remove_interface(&attachment("c1").host_ifname());
    node.engine.sweep().await;
    assert!(node.directory.path().join("missing.json").exists());
    node.engine.del(&del("c1")).await.unwrap();
    assert!(!node.directory.path().join("missing.json").exists());
}

#[tokio::test(start_paused = true)]
async fn gc_answers_in_time_when_the_kernel_is_slow() {
    for (look, removed) in [(5, false), (3, true)] {
        let mut node = Node::new().await;
        node.add("c1", 20).await.unwrap();
        node.kernel.lock().slow = Duration::from_secs(look);
        let call = GcCall { network: "net".into(), valid: Vec::new() };
        let before = Instant::now();
        let result = node.engine.collect(&call).await;
        assert!(before.elapsed() < Duration::from_secs(9), "{:?}", before.elapsed());
        // Its pins are looked for when the time is up.
        let failure = match result {
            Ok((collected, _)) => collected.failures[0].clone(),
            Err(failure) => failure,
        };
        assert_eq!(failure.code, TRY_AGAIN, "{failure}");
        assert_eq!(node.files() == 0, removed);
        node.kernel.lock().slow = Duration::ZERO;
        assert_eq!(node.gc_to_the_end().await.1.failures, []);
        assert_eq!(node.files(), 0);
    }
}

#[tokio::test]
async fn gc_counts_leases_that_are_back() {
    let mut node = Node::new().await;
    let fails = node.plugin("fails", "echo '{\"code\": 99, \"msg\": \"no\"}'; exit 1");
    let works = node.plugin("works", "cat");
    node.leased("c1", 20, "10.244.1.9", works).await.unwrap();
    let (begun, ended) = node.gc_to_the_end().await;
    assert_eq!((begun.removed, ended.removed, ended.failures.len()), (0, 1, 0));
    assert_eq!(node.files(), 0);
    node.leased("c2", 21, "10.244.1.9", fails).await.unwrap();
    let (_, ended) = node.gc_to_the_end().await;
    assert_eq!((ended.removed, ended.failures.len(), node.files()), (0, 1, 1), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn gc_names_leases_that_do_not_come_back() {
    let mut node = Node::new().await;
    let hangs = node.plugin("hangs", HANGS);
    node.leased("c1", 20, "10.244.1.9", hangs).await.unwrap();
    let call = GcCall { network: "net".into(), valid: Vec::new() };
    let (begun, returns) = node.engine.collect(&call).await.unwrap();
    let ended = returns.end(begun).await;
    assert_eq!(ended.removed, 0);
    let [failure] = ended.failures.as_slice() else { panic!("{ended:?}") };
    assert!(failure.message.contains(&attachment("c1").host_ifname()), "{failure}");
}

#[tokio::test]
async fn a_plugin_that_hangs_holds_up_neither_locks_nor_other_plugins() {
    let mut node = Node::new().await;
    let (hangs, works) = (node.plugin("hangs", HANGS), node.plugin("works", "cat"));
    for n in 0..6 {
        let address = format!("10.244.1.{}", n + 20);
        let container = format!("c{n}");
        node.leased(&container, 20 + n, &address, hangs.clone()).await.unwrap();
        node.kernel.lock().remove_interface(&attachment(&container).host_ifname());
    }
    node.leased("other", 40, "10.244.1.40", works).await.unwrap();
    let other = attachment("other").host_ifname();
    node.kernel.lock().remove_interface(&other);
    node.engine.sweep().await;
    node.engine.sweep().await;
    let first = attachment("c0").host_ifname();
    assert!(try_plugin_lock(&node.engine.socket, &first).unwrap().is_some(), "no lock is held");
    let failure = node.add("c0", 50).await.unwrap_err();
    assert!(failure.code == TRY_AGAIN && failure.message.contains("given back"), "{failure}");
    let freed = node.engine.leases.next().await.unwrap();
    assert_eq!(freed.name, other);
    node.engine.lease_freed(freed).await;
    assert_eq!(node.files(), 6);
}

#[tokio::test]
async fn an_add_fails_whose_host_route_is_refused() {
    let mut node = Node::new().await;
    let works = node.plugin("works", "cat");
    let address: IpAddr = "10.99.0.5".parse().unwrap();
    node.kernel.lock().failing.insert("route");
    let failure = node.leased("c1", 20, "10.99.0.5", works.clone()).await.unwrap_err();
    assert_eq!(failure.code, KERNEL, "{failure}");
    assert!(failure.message.contains("host route to 10.99.0.5"), "{failure}");
    assert!(failure.details.contains("injected"), "{failure}");
    assert_eq!(node.entry(&address), None);
    node.kernel.lock().failing.clear();
    assert!(node.engine.reconcile().await);
    let routes = node.kernel.lock().observed.state.routes.len();
    assert_eq!(routes, 2, "those of the cluster");
    let freed = DelCall { lease_freed: true, ..del("c1") };
    node.engine.del(&freed).await.unwrap();
    assert_eq!(node.files(), 0);
    node.leased("c1", 21, "10.99.0.5", works).await.unwrap();
    assert!(node.entry(&address).is_some());
}
