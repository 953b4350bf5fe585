//! A pod: a namespace that the CNI plugin wires up.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::node::{CniCall, Node};

/// A pod. Its namespace goes when it is dropped.
#[derive(Debug)]
pub struct Pod {
    /// Its network.
    pub namespace: Namespace,
    /// The node that it is on.
    pub node: Arc<Node>,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// Its addresses, IPv4 first; empty before ADD.
    pub addresses: Vec<IpAddr>,
    /// What ADD returned.
    pub result: Value,
}

impl Node {
    /// Makes a pod on this node.
    ///
    /// # Errors
    /// When the plugin fails.
    pub fn pod(self: &Arc<Self>) -> Result<Pod> {
        let mut pod = self.bare_pod()?;
        pod.add()?;
        Ok(pod)
    }

    /// Makes the namespace of a pod, without network.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn bare_pod(self: &Arc<Self>) -> Result<Pod> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let container_id = format!("{}-{}-pod{number}", self.run(), self.name);
        let namespace = Namespace::new(&container_id, self.is_kept())?;
        let node = Arc::clone(self);
        Ok(Pod { namespace, node, container_id, addresses: Vec::new(), result: Value::Null })
    }
}

impl Pod {
    /// Calls the plugin's ADD.
    ///
    /// # Errors
    /// When it fails.
    pub fn add(&mut self) -> Result<()> {
        self.result = match self.call("ADD")? {
            Ok(result) => result,
            Err(error) => bail!("ADD of {}: {error}", self.container_id),
        };
        let ips = self.result["ips"].as_array().context("no ips")?;
        let parse = |ip: &Value| -> Result<IpAddr> {
            let text = ip["address"].as_str().context("address")?;
            let (address, _) = text.split_once('/').context("no prefix length")?;
            Ok(address.parse()?)
        };
        self.addresses = ips.iter().map(parse).collect::<Result<_>>()?;
        self.addresses.sort();
        Ok(())
    }

    /// Calls the plugin's DEL.
    ///
    /// # Errors
    /// When it fails.
    pub fn delete(&self) -> Result<()> {
        self.call("DEL")?.map(drop).map_err(|error| anyhow!("DEL: {error}"))
    }

    /// Calls the plugin.
    ///
    /// # Errors
    /// When its output is none of the contract.
    pub fn call(&self, command: &str) -> Result<Result<Value, Value>> {
        let netns = self.netns();
        self.node.cni(&CniCall { command, container_id: &self.container_id, netns: &netns })
    }

    /// Path of its namespace.
    pub fn netns(&self) -> PathBuf {
        self.namespace.path()
    }

    /// Name of the host side of its veth.
    ///
    /// # Errors
    /// When ADD did not say it.
    pub fn host_ifname(&self) -> Result<String> {
        let interfaces = self.result["interfaces"].as_array().context("interfaces")?;
        let host = interfaces.iter().find(|i| i["sandbox"].as_str().is_none_or(str::is_empty));
        Ok(host.and_then(|i| i["name"].as_str()).context("no host interface")?.to_owned())
    }
}
