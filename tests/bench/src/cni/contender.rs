//! A plugin that is measured, with its node and its configuration.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use serde_json::{Value, json};
use tests::namespace::Namespace;
use tests::node::Node;

use super::call::{self, PLUGINS, Spent};

/// Tries of an ADD of somebody else's plugin.
const TRIES: u32 = 3;

/// A plugin on a node of its own.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    /// Names its pods.
    pub(super) label: String,
    pub(super) host: Namespace,
    pub(super) plugin: PathBuf,
    configuration: Value,
    is_ours: bool,
    failures: AtomicU32,
}

impl Contender {
    /// Podwire on a node of the cluster.
    ///
    /// # Errors
    /// When the plugin is missing.
    pub(super) fn podwire(node: &Node) -> Result<Self> {
        Ok(Self {
            name: "podwire",
            label: node.name.clone(),
            host: node.namespace.clone(),
            plugin: tests::binaries::plugin()?,
            configuration: node.cni_configuration(),
            is_ours: true,
            failures: AtomicU32::new(0),
        })
    }

    /// A plugin of the CNI project with `host-local`, of both families as Podwire is.
    pub(super) fn reference(
        name: &'static str,
        label: String,
        host: Namespace,
        data: &Path,
        net: u8,
    ) -> Self {
        let plugin = name.split(' ').next().unwrap_or(name);
        let mut configuration = json!({
            "cniVersion": "1.0.0",
            "name": "reference",
            "type": plugin,
            "ipam": {
                "type": "host-local",
                "dataDir": data,
                "ranges": [
                    [{ "subnet": format!("10.{net}.0.0/16") }],
                    [{ "subnet": format!("fd{net}::/64") }],
                ],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        });
        if plugin == "bridge" {
            configuration["bridge"] = "cni0".into();
            configuration["isGateway"] = true.into();
        }
        Self {
            name,
            label,
            host,
            plugin: Path::new(PLUGINS).join(plugin),
            configuration,
            is_ours: false,
            failures: AtomicU32::new(0),
        }
    }

    /// How many of its ADDs failed and were tried again.
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// ADD; returns the result and what it took.
    ///
    /// # Errors
    /// When it fails: Podwire's at once, others' when they do so again and again.
    pub(super) fn add(&self, pod: &Namespace) -> Result<(Value, Spent)> {
        let mut tries = if self.is_ours { 1 } else { TRIES };
        loop {
            tries -= 1;
            match self.call("ADD", pod, &Value::Null) {
                Ok((text, spent)) => return Ok((serde_json::from_str(&text)?, spent)),
                Err(error) if tries == 0 => return Err(error),
                Err(_) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    self.del(pod)?;
                }
            }
        }
    }

    /// CHECK of what ADD gave.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn check(&self, pod: &Namespace, result: &Value) -> Result<Spent> {
        Ok(self.call("CHECK", pod, &json!({ "prevResult": result }))?.1)
    }

    /// DEL.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn del(&self, pod: &Namespace) -> Result<Spent> {
        Ok(self.call("DEL", pod, &Value::Null)?.1)
    }

    /// A command for one call, and its input, with more keys.
    pub(super) fn command(
        &self,
        verb: &str,
        pod: &Namespace,
        more: &Value,
    ) -> (std::process::Command, String) {
        let mut configuration = self.configuration.clone();
        for (key, value) in more.as_object().into_iter().flatten() {
            configuration[key] = value.clone();
        }
        (call::command(&self.plugin, verb, pod.name(), &pod.path()), configuration.to_string())
    }

    fn call(&self, verb: &str, pod: &Namespace, more: &Value) -> Result<(String, Spent)> {
        let (mut command, input) = self.command(verb, pod, more);
        self.host.enter(|| call::run(&mut command, &input))
    }
}
