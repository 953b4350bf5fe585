//! What several subjects look at.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::kernel::TUNNEL_DEVICE;
use crate::kernel::live::probe::devices::{Device, devices, routes};
use crate::kernel::live::probe::features::{Refusal, Trial};
use crate::kernel::live::probe::firewall::{self, Firewall};
use crate::model::Encapsulation;
use crate::settings::Surroundings;
use crate::status::{self, Status, StatusError};

/// This node.
pub(super) struct Node {
    pub(super) around: Surroundings,
    pub(super) agent: Agent,
    pub(super) devices: BTreeMap<String, Device>,
    /// Why there are no devices.
    pub(super) devices_unseen: Option<String>,
    pub(super) uplinks: Vec<String>,
    pub(super) firewall: Result<Firewall, String>,
    /// The programs of this build, in the kernel beside those that run.
    pub(super) trial: Result<Trial, Refusal>,
}

/// The agent, as it answers.
pub(super) enum Agent {
    Runs(Box<Status>),
    /// Nobody listens.
    Away {
        why: String,
        last_seen: Option<Duration>,
    },
    /// It runs, and its status cannot be had.
    Silent(String),
}

impl Agent {
    fn ask(around: &Surroundings) -> Self {
        let document = match status::ask(&around.socket) {
            Ok(document) => document,
            Err(StatusError::Away { socket, last_seen, source }) => {
                let why = format!("no agent listens at {}: {source}", socket.display());
                return Self::Away { why, last_seen };
            }
            Err(error) => return Self::Silent(error.to_string()),
        };
        match serde_json::from_value(document) {
            Ok(status) => Self::Runs(Box::new(status)),
            Err(error) => Self::Silent(format!("the agent is of another version: {error}")),
        }
    }
}

impl Node {
    pub(super) async fn look(mut around: Surroundings) -> Self {
        let agent = Agent::ask(&around);
        let (devices, devices_unseen) = match devices().await {
            Ok(devices) => (devices, None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        if let Agent::Runs(status) = &agent {
            around.network.encapsulation = status.node.encapsulation;
            let port = devices.get(TUNNEL_DEVICE).and_then(|device| device.vxlan_port);
            around.network.vxlan_port = port.unwrap_or(around.network.vxlan_port);
        }
        let uplinks = uplinks(&around, &agent, &devices).await;
        let firewall = firewall::look().map_err(|error| error.to_string());
        let trial = Trial::load();
        Self { around, agent, devices, devices_unseen, uplinks, firewall, trial }
    }

    pub(super) fn status(&self) -> Option<&Status> {
        match &self.agent {
            Agent::Runs(status) => Some(status),
            Agent::Away { .. } | Agent::Silent(_) => None,
        }
    }

    /// Whether packets may go through VXLAN.
    pub(super) fn has_tunnel(&self) -> bool {
        self.around.network.encapsulation != Encapsulation::Direct
    }

    /// A value of `/proc/sys`; none where the kernel does not have it.
    pub(super) fn sysctl(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.around.sysctl_dir.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Name of an interface.
    pub(super) fn name_of(&self, ifindex: u32) -> Option<&str> {
        let mut devices = self.devices.values();
        devices
            .find(|device| device.link.ifindex == ifindex)
            .map(|device| device.link.name.as_str())
    }
}

/// As the agent says, else as the options say, else the devices of default routes.
async fn uplinks(
    around: &Surroundings,
    agent: &Agent,
    devices: &BTreeMap<String, Device>,
) -> Vec<String> {
    if let Agent::Runs(status) = agent {
        return status.node.uplinks.clone();
    }
    if !around.network.uplinks.is_empty() {
        return around.network.uplinks.clone();
    }
    let defaults = routes(|route| route.destination.prefix_len() == 0).await.unwrap_or_default();
    let is_used = |device: &&Device| {
        defaults.iter().any(|route| route.ifindexes.contains(&device.link.ifindex))
    };
    devices.values().filter(is_used).map(|device| device.link.name.clone()).collect()
}
