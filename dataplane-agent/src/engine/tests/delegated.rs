//! Addresses that are asked for, and those of a delegated plugin that is a script.

use std::path::PathBuf;

use cni_shim::delegation::Delegation;
use cni_shim::error::{ADDRESS_IN_USE, ALREADY_ATTACHED, INVALID_CONFIG, TRY_AGAIN};

use super::*;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

impl Node {
    fn calls(&self) -> PathBuf {
        self.directory.path().join("calls")
    }

    /// A plugin that writes down how it is called, and ends as the file `end` says.
    fn delegation(&self) -> Delegation {
        let plugin = self.directory.path().join("given");
        let text = "#!/bin/sh\ncd \"${0%/*}\"\n\
            echo \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME <$CNI_NETNS> $CNI_ARGS $(cat)\" >> calls\n\
            [ ! -e end ] || { cat end; exit 1; }\n";
        fake::write_program(&plugin, text);
        Delegation {
            plugin,
            path: "/cni".to_owned(),
            args: "K=v".to_owned(),
            config: serde_json::json!({ "name": "n" }),
        }
    }

    async fn lease(
        &mut self,
        container: &str,
        ifindex: u32,
        addresses: &[&str],
    ) -> Result<Added, Failure> {
        let announced = Source::Announced(Box::new(self.delegation()));
        let added = self.add_from(announced, container, ifindex).await?;
        assert!(added.addresses.is_empty());
        self.add_from(Source::Leased(ips(addresses)), container, ifindex).await
    }

    fn remove_interface(&self, container: &str) {
        self.kernel.lock().remove_interface(&attachment(container).host_ifname());
    }

    /// Two looks, and the end of the calls of delegated plugins that they began.
    async fn sweep_twice(&mut self) {
        self.engine.sweep().await;
        self.engine.sweep().await;
        while let Some(freed) = self.engine.leases.next().await {
            self.engine.lease_freed(freed).await;
        }
    }
}

#[tokio::test]
async fn addresses_that_are_asked_for_are_given_or_refused() {
    let mut node = Node::new().await;
    let asked = Source::Pools(ips(&["10.244.1.77"]));
    let added = node.add_from(asked.clone(), "c1", 20).await.unwrap();
    assert_eq!(added.addresses, ips(&["10.244.1.77", "fd00:10:244:1::2"]));
    assert!(node.entry(&added.addresses[0]).is_some());
    let error = node.add_from(asked, "c2", 21).await.unwrap_err();
    assert_eq!(error.code, ADDRESS_IN_USE, "{error}");
    let elsewhere = Source::Pools(ips(&["10.244.2.7"]));
    let error = node.add_from(elsewhere, "c2", 21).await.unwrap_err();
    assert_eq!(error.code, INVALID_CONFIG, "{error}");
    assert!(error.details.contains("10.244.1.0/24, fd00:10:244:1::/64"), "{error}");
    assert_eq!(node.files(), 1);
}

#[tokio::test]
async fn the_addresses_of_a_delegated_plugin_are_the_pods() {
    let mut node = Node::new().await;
    let added = node.lease("c1", 20, &["10.244.1.2", "10.244.1.9", "192.0.2.5"]).await.unwrap();
    assert_eq!(added.mtu, 1_450);
    for address in &added.addresses {
        assert_eq!(node.entry(address).unwrap().ifindex, 20);
    }
    let state = node.kernel.lock().observed.state.clone();
    let outside = "192.0.2.5/32".parse().unwrap();
    assert!(state.routes.contains_key(&outside), "the host reaches it");
    assert!(state.nft.unwrap().pods.contains(&outside), "it is masqueraded");
    assert!(!state.routes.contains_key(&"10.244.1.2/32".parse().unwrap()), "no route per pod");
    // The pool knows of it.
    assert_eq!(node.add("c2", 21).await.unwrap().addresses[0], ips(&["10.244.1.3"])[0]);

    let mut node = node.restart().await;
    assert!(node.engine.reconcile().await);
    let freed = DelCall { lease_freed: true, ..del("c1") };
    node.engine.del(&freed).await.unwrap();
    assert!(node.entry(&added.addresses[2]).is_none());
    assert_eq!(node.files(), 1);
    node.remove_interface("c1");
    node.engine.reconcile().await;
    assert!(!node.kernel.lock().observed.state.routes.contains_key(&outside));
    assert!(!node.calls().exists(), "the plugin has called it already");
}

#[tokio::test]
async fn what_belongs_to_others_is_refused() {
    let mut node = Node::new().await;
    node.add_from(Source::Pools(ips(&["10.244.1.7"])), "c1", 20).await.unwrap();
    for (address, code, why) in [
        ("10.244.2.7", INVALID_CONFIG, "is in 10.244.2.0/24, which is the node b's"),
        ("192.168.1.12", INVALID_CONFIG, "is an address of the node b"),
        ("192.168.1.11", INVALID_CONFIG, "is an address of the node a"),
        ("10.244.1.1", INVALID_CONFIG, "the node's own address"),
        ("10.244.1.255", INVALID_CONFIG, "the broadcast address"),
        ("169.254.1.1", INVALID_CONFIG, "no address that a pod can have"),
        ("fe80::5", INVALID_CONFIG, "no address that a pod can have"),
        ("::ffff:10.0.0.1", INVALID_CONFIG, "no address that a pod can have"),
        ("239.1.1.1", INVALID_CONFIG, "no address that a pod can have"),
        ("10.244.1.7", ADDRESS_IN_USE, "10.244.1.7 is in use"),
    ] {
        let error = node.lease("c2", 21, &["192.0.2.1", address]).await.unwrap_err();
        assert!(error.code == code && error.details.contains(why), "{address}: {error}");
        assert!(node.entry(&ips(&["192.0.2.1"])[0]).is_none());
        node.engine.del(&DelCall { lease_freed: true, ..del("c2") }).await.unwrap();
    }
    assert_eq!(node.files(), 1);
    let unannounced = Source::Leased(ips(&["192.0.2.1"]));
    let error = node.add_from(unannounced, "c3", 22).await.unwrap_err();
    assert_eq!(error.code, TRY_AGAIN, "{error}");
}

#[tokio::test]
async fn an_address_changes_hands_when_its_interface_is_gone() {
    let mut node = Node::new().await;
    node.lease("c1", 20, &["192.0.2.5"]).await.unwrap();
    let error = node.lease("c2", 21, &["192.0.2.5"]).await.unwrap_err();
    assert_eq!(error.code, ADDRESS_IN_USE, "{error}");
    node.remove_interface("c1");
    let again = Source::Leased(ips(&["192.0.2.5"]));
    let added = node.add_from(again, "c2", 21).await.unwrap();
    // The DEL of the old owner comes late.
    node.engine.del(&DelCall { lease_freed: true, ..del("c1") }).await.unwrap();
    assert_eq!(node.entry(&added.addresses[0]).unwrap().ifindex, 21);
    assert!(node.engine.reconcile().await);
    assert_eq!(node.entry(&added.addresses[0]).unwrap().ifindex, 21);
}

#[tokio::test]
async fn a_lease_is_not_replaced_before_it_is_given_back() {
    let mut node = Node::new().await;
    node.lease("c1", 20, &["192.0.2.5"]).await.unwrap();
    node.remove_interface("c1");
    let error = node.lease("c1", 21, &["192.0.2.5"]).await.unwrap_err();
    assert_eq!(error.code, ALREADY_ATTACHED, "{error}");
    let error = node.add("c1", 21).await.unwrap_err();
    assert_eq!(error.code, ALREADY_ATTACHED, "{error}");
}

/// Nobody deletes: neither what got its lease nor what was killed before that.
#[tokio::test]
async fn the_sweep_gives_leases_back() {
    let mut node = Node::new().await;
    node.lease("c1", 20, &["192.0.2.5"]).await.unwrap();
    let announced = Source::Announced(Box::new(node.delegation()));
    node.add_from(announced, "c2", 21).await.unwrap();
    let mut node = node.restart().await;
    assert!(node.engine.reconcile().await);
    node.remove_interface("c1");
    node.remove_interface("c2");
    fs::write(node.directory.path().join("end"), r#"{"code":999,"msg":"no disk"}"#).unwrap();
    node.sweep_twice().await;
    assert_eq!(node.files(), 2, "kept for another try");
    let problems = format!("{:?}", node.engine.file_problems);
    assert!(problems.contains("its lease cannot be given back: no disk"), "{problems}");
    fs::remove_file(node.directory.path().join("end")).unwrap();
    fs::remove_file(node.calls()).unwrap();
    node.sweep_twice().await;
    assert_eq!(node.files(), 0);
    assert!(node.engine.file_problems.is_empty());
    let calls = fs::read_to_string(node.calls()).unwrap();
    let mut calls: Vec<&str> = calls.lines().collect();
    calls.sort_unstable();
    assert_eq!(calls, ["c1", "c2"].map(|c| format!("DEL {c} eth0 <> K=v {{\"name\":\"n\"}}")));
}

/// A DEL that could not call the plugin leaves that to the sweep.
#[tokio::test]
async fn a_del_without_the_plugin_leaves_the_lease_to_the_sweep() {
    let mut node = Node::new().await;
    let added = node.lease("c1", 20, &["192.0.2.5"]).await.unwrap();
    node.engine.del(&del("c1")).await.unwrap();
    assert!(node.entry(&added.addresses[0]).is_none());
    assert_eq!(node.files(), 1);
    node.remove_interface("c1");
    node.sweep_twice().await;
    assert_eq!(node.files(), 0);
    assert!(fs::read_to_string(node.calls()).unwrap().starts_with("DEL c1 eth0"));
}

/// The clock of the test goes on as soon as nothing but the plugin runs.
#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_is_ended_and_named() {
    let mut node = Node::new().await;
    node.lease("c1", 20, &["192.0.2.5"]).await.unwrap();
    fs::write(node.directory.path().join("given"), "#!/bin/sh\nexec sleep 600\n").unwrap();
    node.remove_interface("c1");
    node.sweep_twice().await;
    let problems = format!("{:?}", node.engine.file_problems);
    assert!(problems.contains("DEL took more than 20 s"), "{problems}");
    assert_eq!(node.files(), 1);
}
