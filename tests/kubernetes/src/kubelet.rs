//! The kubelet of a node.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::addresses::DNS;
use crate::certificates::Certificates;
use crate::node::Node;
use crate::programs;

/// Starts it, to register the node with taints.
pub(crate) fn start(node: &mut Node, certificates: &Certificates, taints: &Value) -> Result<()> {
    let user = format!("system:node:{}", node.name);
    let kubeconfig = node.file("kubelet.kubeconfig");
    certificates.kubeconfig(&kubeconfig, &[&user, "system:nodes"])?;
    let resolver = node.file("resolv.conf");
    fs::write(&resolver, "nameserver 203.0.113.10\n")?;
    let file = node.file("kubelet.json");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": kubeconfig.with_extension("ca")},
        },
        "authorization": {"mode": "Webhook"},
        // Two kubelets on one tree would remove each other's pods.
        "cgroupRoot": format!("/{}", node.group),
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // The machine's disk is not the cluster's to keep free.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        // Almost as many as its pod network has addresses.
        "maxPods": 260,
        "registerWithTaints": taints,
        "resolvConf": resolver,
    });
    fs::write(&file, config.to_string())?;
    let flags = [
        format!("--config={}", file.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.addresses.join(",")),
    ];
    node.spawn("kubelet", &programs::built("kubelet")?, &flags)
}
