//! What is written down before an uplink is changed.

use std::fs;

use super::*;
use crate::kernel::{Aggregates, LEGACY_MAX};
use crate::model::{BigTcpMode, Encapsulation};

impl Node {
    fn set(&mut self, big_tcp: BigTcpMode) {
        let network = &mut self.engine.model.network;
        (network.big_tcp, network.encapsulation) = (big_tcp, Encapsulation::Direct);
    }

    fn uplink(&self) -> Aggregates {
        self.kernel.lock().observed.interfaces["eth0"].aggregates
    }
}

#[tokio::test]
async fn a_killed_agent_leaves_its_successor_what_the_uplink_had() {
    let mut node = Node::new().await;
    let told = node.engine.big_tcp.subscribe();
    node.set(BigTcpMode::On);
    assert!(node.engine.reconcile().await, "{:?}", node.engine.failures);
    assert!(node.uplink().gso > LEGACY_MAX && told.borrow().ipv6.is_some());
    let mut node = node.restart().await;
    node.set(BigTcpMode::Off);
    assert!(node.engine.reconcile().await, "{:?}", node.engine.failures);
    assert_eq!(node.uplink(), Aggregates::default());
    assert!(!node.directory.path().join("uplinks.json").exists());
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let mut node = Node::new().await;
    node.set(BigTcpMode::On);
    let file = node.directory.path().join("uplinks.json");
    fs::create_dir(&file).unwrap();
    assert!(!node.engine.reconcile().await);
    assert!(node.engine.failures[0].contains("uplinks.json"), "{:?}", node.engine.failures);
    assert_eq!(node.uplink(), Aggregates::default());
    assert!(node.engine.big_tcp.borrow().is_off());
    fs::remove_dir(&file).unwrap();
    assert!(node.engine.reconcile().await, "{:?}", node.engine.failures);
    assert!(node.uplink().gso > LEGACY_MAX);
    // Somebody removes the file, as with the rest of the directory.
    fs::remove_file(&file).unwrap();
    assert!(node.engine.reconcile().await && file.exists());
}
