//! Values that make no sense are refused before anything is installed.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::accepted;
use super::objects::{chart, unchecked_chart};

/// Values, and what the error names. The agent would refuse them, too, on every node.
fn of_the_agent() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"encapsulation": "ipip"}), "encapsulation"),
        (json!({"vxlan": {"port": 0}}), "vxlan.port"),
        (json!({"vxlan": {"port": 65_536}}), "vxlan.port"),
        (json!({"vxlan": {"vni": 0}}), "vxlan.vni"),
        (json!({"vxlan": {"vni": 16_777_216}}), "vxlan.vni"),
        (json!({"bigTcp": "no"}), "bigTcp"),
        (json!({"mtu": -1}), "mtu"),
        (json!({"mtu": 575}), "mtu"),
        (json!({"mtu": 65_536}), "mtu"),
        (json!({"uplinks": [""]}), "uplinks.0"),
        (json!({"uplinks": ["eth0", "sixteen-letters-"]}), "uplinks.1"),
        (json!({"uplinks": ["a/b"]}), "uplinks.0"),
        (json!({"clusterCIDRs": ["10.0.0.0"]}), "clusterCIDRs.0"),
        (json!({"clusterCIDRs": ["10.0.0.0/31"]}), "clusterCIDRs.0"),
        (json!({"clusterCIDRs": ["0.0.0.0/0"]}), "clusterCIDRs.0"),
        (json!({"clusterCIDRs": ["::/0"]}), "clusterCIDRs.0"),
        (json!({"clusterCIDRs": ["10.0.256.0/24"]}), "clusterCIDRs.0"),
        (json!({"clusterCIDRs": ["fd00::/48", "fd01::/127"]}), "clusterCIDRs.1"),
        (json!({"clusterCIDRs": ["10.0.0.0/8", "10.0.0.0/8"]}), "clusterCIDRs"),
        (json!({"metrics": {"address": "eth0"}}), "metrics.address"),
        (json!({"metrics": {"port": 65_536}}), "metrics.port"),
    ]
}

/// The agent would not see these, or take them for something else.
fn of_the_chart() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"encapsulaton": "vxlan"}), "encapsulaton"),
        (json!({"vxlan": {"prot": 8472}}), "prot"),
        (json!({"vxlan": {"port": "8472"}}), "vxlan.port"),
        (json!({"mtu": 1400.5}), "mtu"),
        (json!({"uplinks": "eth0"}), "uplinks"),
        (json!({"uplinks": ["eth0,eth1"]}), "uplinks.0"),
        (json!({"cni": {"binDir": "opt/cni/bin"}}), "cni.binDir"),
        (json!({"cni": {"confDir": "/"}}), "cni.confDir"),
        (json!({"metrics": {"address": "192.168.1.1"}}), "metrics.address"),
        (json!({"metrics": {"port": 0}}), "metrics.port"),
        (json!({"logLevel": "verbose"}), "logLevel"),
        (json!({"expedite": "no"}), "expedite"),
        (json!({"kubernetesService": {"host": "https://10.0.0.1"}}), "kubernetesService.host"),
        (json!({"kubernetesService": {"port": 0}}), "kubernetesService.port"),
        (json!({"image": {"repository": "podwire:0.1.0"}}), "image.repository"),
        (json!({"image": {"tag": "a b"}}), "image.tag"),
        (json!({"image": {"digest": "sha256:12"}}), "image.digest"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "image.pullPolicy"),
        (json!({"imagePullSecrets": ["registry"]}), "imagePullSecrets.0"),
        (json!({"doctor": "no"}), "doctor"),
        (json!({"resources": {"request": {}}}), "request"),
        (json!({"priorityClassName": "High"}), "priorityClassName"),
        (json!({"nodeSelector": {"example.com/network": true}}), "nodeSelector"),
        (json!({"affinity": []}), "affinity"),
        (json!({"tolerations": ["Exists"]}), "tolerations.0"),
        (json!({"updateStrategy": {"type": "Recreate"}}), "updateStrategy.type"),
        (json!({"updateStrategy": {"maxUnavailable": 0}}), "updateStrategy.maxUnavailable"),
        (json!({"updateStrategy": {"maxUnavailable": "0%"}}), "updateStrategy.maxUnavailable"),
        (json!({"podAnnotations": {"a": 1}}), "podAnnotations.a"),
        (json!({"podLabels": {"a": true}}), "podLabels.a"),
        (json!({"podLabels": {"app.kubernetes.io/name": "x"}}), "app.kubernetes.io/name"),
    ]
}

#[test]
fn the_error_names_the_value() -> Result<()> {
    for (values, name) in of_the_agent().into_iter().chain(of_the_chart()) {
        let Err(error) = chart(&values) else { panic!("{values} is taken") };
        let error = format!("{error:#}");
        ensure!(error.contains("values don't meet the specifications"), "{values}: {error}");
        ensure!(error.contains(name), "{values}: {error}");
    }
    Ok(())
}

#[test]
fn the_agent_refuses_them_too() -> Result<()> {
    for (values, _) in of_the_agent() {
        let said = accepted::start(&unchecked_chart(&values)?)?;
        ensure!(!accepted::is_accepted(&said), "the agent takes {values}: {said}");
    }
    Ok(())
}
