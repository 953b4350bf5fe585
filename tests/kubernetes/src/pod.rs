//! A pod that only has a network: others send and receive in it.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use harness::namespace::Namespace;
use serde_json::{Value, json};

use crate::agent::processes;
use crate::images;

/// A pod and its network.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) namespace: Namespace,
    pub(crate) addresses: Vec<IpAddr>,
    /// Another one after a container or its node started again.
    pub(crate) sandbox: PathBuf,
}

impl Pod {
    /// By the object of one that is Ready on this machine.
    pub(crate) fn read(object: &Value) -> Result<Self> {
        let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
        let uid = object["metadata"]["uid"].as_str().context("an id")?.to_owned();
        let addresses = object["status"]["podIPs"].as_array().context("addresses")?.iter();
        let addresses = addresses.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
        let process =
            processes(&uid)?.into_iter().next().with_context(|| format!("no process of {name}"))?;
        let sandbox = fs::read_link(process.join("ns/net"))?;
        let namespace = Namespace::borrow(&process.join("ns/net"))?;
        Ok(Self { name, uid, namespace, addresses, sandbox })
    }
}

/// The object of one on a node.
pub(crate) fn object(name: &str, namespace: &str, node: &str) -> Result<Value> {
    let mut spec = spec()?;
    spec["nodeName"] = node.into();
    // A token would be asked for anew, of an API server that may be away.
    spec["automountServiceAccountToken"] = false.into();
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
}

/// What it runs, on any node.
pub(crate) fn spec() -> Result<Value> {
    Ok(json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "one", "image": images::agnhost()?, "imagePullPolicy": "Never",
            "args": ["pause"],
        }],
    }))
}
