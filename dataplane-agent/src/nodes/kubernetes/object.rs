//! The node object of the API server, as far as it is used: the rest is not even kept in memory.

use std::borrow::Cow;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::seen::{Seen, SeenAddress, Standing};

/// The taint that keeps pods away from a node until this agent takes it off.
pub(super) const TAINT: &str = "podwire.dev/agent-not-ready";
/// The condition of a node object that says whether pods have a network.
pub(super) const CONDITION: &str = "NetworkUnavailable";

/// A node object.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeObject {
    #[serde(deserialize_with = "few_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    taints: Vec<Taint>,
}

#[derive(Clone, Debug, Deserialize)]
struct Taint {
    key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Vec<SeenAddress>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

/// Without labels, annotations and managed fields, which are most of an object.
fn few_metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Few {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
    }
    let Few { name, uid, resource_version, creation_timestamp } = Few::deserialize(from)?;
    Ok(ObjectMeta { name, uid, resource_version, creation_timestamp, ..ObjectMeta::default() })
}

impl NodeObject {
    /// Its name and what the agent keeps of it.
    pub(super) fn into_seen(self) -> (String, Seen) {
        let condition =
            |condition: &Condition| condition.r#type == CONDITION && condition.status == "False";
        let mut pod_cidrs = self.spec.pod_cidrs;
        if pod_cidrs.is_empty() && !self.spec.pod_cidr.is_empty() {
            pod_cidrs.push(self.spec.pod_cidr);
        }
        let created = self.metadata.creation_timestamp.map_or(0, |time| time.0.as_second());
        let seen = Seen {
            created,
            uid: self.metadata.uid.unwrap_or_default(),
            pod_cidrs,
            taint_at: self.spec.taints.iter().position(|taint| taint.key == TAINT),
            is_available: self.status.conditions.iter().any(condition),
            addresses: self.status.addresses,
            standing: Standing::Registered,
        };
        (self.metadata.name.unwrap_or_default(), seen)
    }
}

impl Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_read() {
        let text = r#"{ "kind": "Node", "apiVersion": "v1",
            "metadata": { "name": "b", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2026-01-02T03:04:05Z", "labels": { "x": "y" },
                "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:x": {} } }] },
            "spec": { "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24", "fd00:2::/64"],
                "taints": [{ "key": "podwire.dev/agent-not-ready", "effect": "NoSchedule" }] },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.168.1.12" },
                    { "type": "Hostname", "address": "b" }],
                "conditions": [{ "type": "NetworkUnavailable", "status": "True" },
                    { "type": "Ready", "status": "False" }],
                "images": [{ "names": ["x"], "sizeBytes": 1 }] } }"#;
        let (name, seen) = serde_json::from_str::<NodeObject>(text).unwrap().into_seen();
        assert_eq!((name.as_str(), seen.uid.as_str(), seen.created), ("b", "u1", 1_767_323_045));
        assert_eq!(seen.pod_cidrs, ["10.244.2.0/24", "fd00:2::/64"]);
        assert_eq!(seen.addresses.len(), 2);
        assert_eq!((seen.taint_at, seen.is_available), (Some(0), false));
        let old = text.replace("\"podCIDRs\": [\"10.244.2.0/24\", \"fd00:2::/64\"],", "");
        let old = old.replace("\"status\": \"True\"", "\"status\": \"False\"");
        let (_, seen) = serde_json::from_str::<NodeObject>(&old).unwrap().into_seen();
        assert_eq!(seen.pod_cidrs, ["10.244.2.0/24"]);
        assert!(seen.is_available);
    }

    #[test]
    fn a_node_that_has_just_been_made_has_next_to_nothing() {
        let text = r#"{ "metadata": { "name": "b", "creationTimestamp": null }, "spec": {} }"#;
        let (name, seen) = serde_json::from_str::<NodeObject>(text).unwrap().into_seen();
        assert_eq!((name.as_str(), seen), ("b", Seen::default()));
    }
}
