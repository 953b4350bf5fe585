//! The plugin: repeated, and asked for what it cannot do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::json;
use tests::cluster::{Cluster, Mode};
use tests::node::CniCall;
use tests::pod::Pod;
use tests::probe;
use tests::wait::wait_until;

use super::traces;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);

#[test]
fn del_succeeds_again_and_without_the_agent() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.pod()?;
        pod.delete()?;
        pod.delete()?;
        traces::ensure_none(node, &pod)?;

        let other = node.pod()?;
        node.kill_agent();
        other.delete()?;
        let left = traces::kernel_traces(node)?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    });
}

/// Neither what ADD would refuse nor files of another release keep an interface alive.
#[test]
fn del_removes_the_interface_whatever_else_is_wrong() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let mut changed = node.cni_configuration();
        changed["ipam"] = json!({ "type": "dhcp" });
        changed["runtimeConfig"] = json!({ "bandwidth": { "ingressRate": 1 } });
        let delete = |pod: &Pod| {
            let netns = pod.netns();
            let call = CniCall { command: "DEL", container_id: &pod.container_id, netns: &netns };
            let result = node.cni_with(&call, &changed)?;
            result.map(drop).map_err(|error| anyhow!("DEL: {error}"))
        };
        let pod = node.pod()?;
        let netns = pod.netns();
        let call = CniCall { command: "CHECK", container_id: &pod.container_id, netns: &netns };
        let mut check = changed.clone();
        check["prevResult"] = pod.result.clone();
        node.cni_with(&call, &check)?.map_err(|error| anyhow!("CHECK: {error}"))?;
        delete(&pod)?;
        traces::ensure_none(node, &pod)?;

        let file = node.directory.join("plugin.json");
        let good = fs::read(&file)?;
        for text in ["{", r#"{"protocol":99,"bpffs":"/nowhere"}"#] {
            let pod = node.pod()?;
            fs::write(&file, text)?;
            delete(&pod).context(text)?;
            fs::write(&file, &good)?;
            let left = traces::interfaces(&node.namespace)?;
            ensure!(!left.contains(&pod.host_ifname()?), "left: {left:?}");
            wait_until("an empty pw_pods", SEEN_TIME_MAX, || {
                let entries = node.map("pw_pods")?.len();
                ensure!(entries == 2, "{entries} entries, not those of the node");
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn bad_requests_get_errors_with_their_codes() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let nowhere = CniCall {
            command: "ADD",
            container_id: "x",
            netns: Path::new("/run/netns/there-is-none"),
        };
        let error = node.cni(&nowhere)?.err().context("ADD to nowhere worked")?;
        ensure!(error.to_string().contains("there-is-none"), "{error}");
        let unknown = CniCall { command: "FROB", ..nowhere };
        let error = node.cni(&unknown)?.err().context("FROB worked")?;
        ensure!(error["code"] == 4, "{error}");
        let unnamed = CniCall { container_id: "", ..nowhere };
        let error = node.cni(&unnamed)?.err().context("no container worked")?;
        ensure!(error["code"] == 4, "{error}");
        let old = serde_json::json!({ "cniVersion": "9.0.0", "name": "a", "type": "podwire" });
        let error = node.cni_with(&nowhere, &old)?.err().context("version 9 worked")?;
        ensure!(error["code"] == 1, "{error}");
        Ok(())
    });
}

/// As hardened hosts and images have it.
#[test]
fn a_pod_gets_ipv6_where_it_is_off_for_new_interfaces() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let mut pod = node.bare_pod()?;
        pod.namespace.sysctls(&[("ipv6/conf/default/disable_ipv6", "1")])?;
        pod.add()?;
        ensure!(pod.addresses.len() == 2, "{:?}", pod.addresses);
        for gateway in node.gateways {
            probe::ping(&pod.namespace, gateway)?;
        }
        Ok(())
    });
}
