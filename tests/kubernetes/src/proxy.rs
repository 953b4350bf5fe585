//! kube-proxy of a node.

use std::fs;

use anyhow::Result;
use clap::ValueEnum;
use harness::cluster::CLUSTER_CIDRS;
use serde_json::json;

use crate::certificates::Certificates;
use crate::node::Node;
use crate::programs;

/// How it forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// By nftables
    Nftables,
    /// By iptables
    Iptables,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Starts it.
pub(crate) fn start(node: &mut Node, certificates: &Certificates, mode: Mode) -> Result<()> {
    let kubeconfig = node.file("kube-proxy.kubeconfig");
    certificates.kubeconfig(&kubeconfig, &["system:kube-proxy", ""])?;
    let file = node.file("kube-proxy.json");
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "clusterCIDR": CLUSTER_CIDRS.join(","),
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": node.name,
        // Limits are the machine's; times are the namespace's, and one specification looks at them.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "24h",
            "tcpCloseWaitTimeout": "1h",
        },
    });
    fs::write(&file, config.to_string())?;
    let flags = [format!("--config={}", file.display())];
    node.spawn("kube-proxy", &programs::built("kube-proxy")?, &flags)
}
