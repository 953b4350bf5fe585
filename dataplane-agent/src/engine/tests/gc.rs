//! GC and STATUS of the plugin.

use cni_shim::error::{NOT_AVAILABLE, TRY_AGAIN};
use cni_shim::protocol::{GcCall, ReadyCall};
use dataplane_core::abi::Mac;

use super::*;
use crate::store::try_plugin_lock;

const NETWORK: &str = "net";

fn name(container: &str) -> String {
    attachment(container).host_ifname()
}

impl Node {
    async fn gc(&mut self, valid: &[&str]) -> cni_shim::protocol::Collected {
        let valid = valid.iter().map(|container| attachment(container)).collect();
        let call = GcCall { network: NETWORK.into(), valid };
        self.engine.collect(&call).await.unwrap().0
    }

    /// What an ADD left that was killed before it asked.
    fn half_made(&self, container: &str, ifindex: u32, alias: &str) -> String {
        let name = name(container);
        let link = crate::kernel::Link {
            alias: alias.to_owned(),
            up: false,
            ..fake::link(&name, ifindex, 1_500, &[])
        };
        self.kernel.lock().add_interface(link);
        name
    }

    fn has(&self, name: &str) -> bool {
        let kernel = self.kernel.lock();
        let is_pinned = kernel.observed.state.links.keys().any(|(link, _)| link == name);
        kernel.observed.interfaces.contains_key(name) || is_pinned
    }
}

#[tokio::test]
async fn gc_removes_what_is_not_valid() {
    let mut node = Node::new().await;
    let stays = node.add("stays", 11).await.unwrap();
    let goes = node.add("goes", 12).await.unwrap();
    let collected = node.gc(&["stays", "unheard-of"]).await;
    assert_eq!((collected.removed, collected.failures.as_slice()), (1, [].as_slice()));
    assert!(node.has(&name("stays")) && !node.has(&name("goes")));
    assert!(node.entry(&stays.addresses[0]).is_some() && node.entry(&goes.addresses[0]).is_none());
    assert_eq!(node.files(), 1);
    assert_eq!(node.engine.ipam.usage()[0].used, 1);
    assert_eq!(node.put_back().await, [], "what it did is no drift");
    assert_eq!(node.gc(&[]).await.removed, 1);
    assert_eq!((node.files(), node.gc(&[]).await.removed), (0, 0));
}

#[tokio::test]
async fn gc_is_bounded_by_its_network() {
    let mut node = Node::new().await;
    node.add("ours", 11).await.unwrap();
    let ours = name("ours");
    node.engine.model.attachments.get_mut(&ours).unwrap().network = "other".to_owned();
    let theirs = node.half_made("theirs", 12, "podwire other eth0 x");
    let made = node.half_made("made", 13, "podwire net eth0 x");
    let unnamed = node.half_made("unnamed", 14, "");
    node.kernel.lock().add_interface(fake::link("eth7", 15, 1_500, &[]));
    let collected = node.gc(&[]).await;
    assert_eq!(collected.removed, 2, "{collected:?}");
    assert!(node.has(&ours) && node.has(&theirs) && node.has("eth7"));
    assert!(!node.has(&made) && !node.has(&unnamed));
}

#[tokio::test]
async fn gc_leaves_what_an_add_works_at() {
    let mut node = Node::new().await;
    node.add("up", 11).await.unwrap();
    node.add("down", 12).await.unwrap();
    node.half_made("unasked", 13, "podwire net eth0 x");
    let socket = node.directory.path().join("agent.sock");
    let names = ["up", "down", "unasked"].map(name);
    let locks: Vec<_> =
        names.iter().map(|name| try_plugin_lock(&socket, name).unwrap().unwrap()).collect();
    node.kernel.lock().observed.interfaces.get_mut(&names[1]).unwrap().up = false;
    let collected = node.gc(&[]).await;
    assert_eq!(collected.removed, 0);
    assert!(names.iter().all(|name| node.has(name)));
    // The one that is up is complete: only who looks again knows.
    let [failure] = collected.failures.as_slice() else { panic!("{collected:?}") };
    assert!(failure.code == TRY_AGAIN && failure.message.contains(&names[0]), "{failure}");
    drop(locks);
    assert_eq!(node.gc(&[]).await.removed, 3);
}

#[tokio::test]
async fn gc_goes_on_after_an_error() {
    let mut node = Node::new().await;
    for (ifindex, container) in (11..).zip(["a", "b", "c"]) {
        node.add(container, ifindex).await.unwrap();
    }
    node.kernel.lock().failing.insert("device");
    let collected = node.gc(&["c"]).await;
    assert_eq!((collected.removed, collected.failures.len()), (0, 2), "{collected:?}");
    assert_eq!(node.files(), 3, "an address is not free while its interface is there");
    node.kernel.lock().failing.clear();
    assert_eq!(node.gc(&["c"]).await.removed, 2);
}

#[tokio::test]
async fn gc_and_sweep_know_a_renamed_interface() {
    let mut node = Node::new().await;
    node.add("c", 11).await.unwrap();
    rename(&mut node, "renamed");
    node.engine.sweep().await;
    node.engine.sweep().await;
    assert_eq!(node.files(), 1, "its address is not free while it is there");
    assert_eq!(node.gc(&[]).await.removed, 1);
    assert!(!node.has("renamed") && !node.has(&name("c")));
}

#[tokio::test]
async fn gc_and_sweep_leave_a_strangers_interface_with_the_same_index() {
    // As after a reboot that files have outlived.
    for is_by_gc in [true, false] {
        let mut node = Node::new().await;
        node.add("c", 11).await.unwrap();
        rename(&mut node, "bond0");
        node.kernel.lock().observed.interfaces.get_mut("bond0").unwrap().alias.clear();
        if is_by_gc {
            assert_eq!(node.gc(&[]).await.removed, 1);
        } else {
            node.engine.sweep().await;
            node.engine.sweep().await;
        }
        assert_eq!(node.files(), 0, "its address is free");
        assert!(node.has("bond0"));
    }
}

/// Renames the interface of the container "c".
fn rename(node: &mut Node, new: &str) {
    let attached = node.engine.model.attachments[&name("c")].clone();
    let mut kernel = node.kernel.lock();
    let mut link = kernel.observed.interfaces.remove(&name("c")).unwrap();
    link.name = new.to_owned();
    link.mac = Mac::new(attached.host_mac);
    link.alias = attached.attachment.alias(&attached.network, "c");
    kernel.add_interface(link);
}

#[tokio::test]
async fn ready_says_what_add_would() {
    let pools = ReadyCall { pools: true };
    let mut unsettled = Node::unsettled().await;
    assert_eq!(unsettled.engine.ready(&pools).unwrap_err().code, TRY_AGAIN);
    let mut node = Node::new().await;
    node.engine.ipam = crate::ipam::Ipam::new(&["10.244.1.0/30".parse().unwrap()]);
    assert_eq!(node.engine.ready(&pools), Ok(()));
    node.add("c", 11).await.unwrap();
    assert_eq!(node.engine.ready(&pools).unwrap_err().code, NOT_AVAILABLE);
    assert_eq!(node.add("d", 12).await.unwrap_err().code, NOT_AVAILABLE);
    assert_eq!(node.engine.ready(&ReadyCall { pools: false }), Ok(()));
}
