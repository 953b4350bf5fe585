//! What agents do to the object of their node: their taint goes, the condition says that pods have a network, and an
//! event tells it. Taints of others stay.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wait::wait_until;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::network::{OTHER_TAINT, TAINT};

const TIME_MAX: Duration = Duration::from_secs(60);
const CONDITION: &str = "NetworkUnavailable";
const EVENT: &str = "PodNetworkReady";

/// Waits until all objects are as they should be.
pub(crate) fn look(cluster: &Cluster) -> Result<String> {
    wait_until("node objects that agents look after", TIME_MAX, || {
        let events = cluster.control.kubectl.get("events --namespace default")?;
        let events = events["items"].as_array().context("events")?;
        let nodes = cluster.get_nodes()?;
        for node in &nodes {
            one(node, events).with_context(|| format!("{}", node["metadata"]["name"]))?;
        }
        Ok(format!("{} objects: {TAINT} is gone, {OTHER_TAINT} is not", nodes.len()))
    })
}

fn one(node: &Value, events: &[Value]) -> Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let taints = list(&node["spec"]["taints"]);
    let has = |key: &str| taints.iter().any(|taint| taint["key"] == key);
    ensure!(has(OTHER_TAINT) && !has(TAINT), "taints: {taints:?}");
    let conditions = list(&node["status"]["conditions"]);
    let condition = conditions.iter().find(|condition| condition["type"] == CONDITION);
    let status = condition.map(|condition| &condition["status"]);
    ensure!(status.is_some_and(|status| status == "False"), "{CONDITION}: {condition:?}");
    let uid = &node["metadata"]["uid"];
    let is_told =
        |event: &Value| event["reason"] == EVENT && event["involvedObject"]["uid"] == *uid;
    ensure!(events.iter().any(is_told), "no event {EVENT}");
    Ok(())
}
