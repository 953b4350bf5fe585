//! Many pods on the first node.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use harness::report::progress;
use serde_json::json;

use crate::cluster::Cluster;
use crate::images::PAUSE;
use crate::kubectl::condition;
use crate::watch::Watch;

const NAMESPACE: &str = "podwire-measure";
const NAME: &str = "crowd";
const TIME_MAX: Duration = Duration::from_secs(900);

/// The pods: as many as it is told, each with the container that does nothing.
pub(super) struct Crowd<'a> {
    cluster: &'a Cluster,
    watch: Watch,
    ready: BTreeSet<String>,
}

impl<'a> Crowd<'a> {
    /// None yet.
    pub(super) fn new(cluster: &'a Cluster) -> Result<Self> {
        let kubectl = &cluster.control.kubectl;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        kubectl.apply(&[namespace, replicas(&cluster.nodes[0].name)])?;
        let collection = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let watch = Watch::new(kubectl, &collection, "")?;
        Ok(Self { cluster, watch, ready: BTreeSet::new() })
    }

    /// Waits until as many are there and Ready, and no others.
    pub(super) fn resize(&mut self, count: usize) -> Result<()> {
        let scale = format!("scale replicaset {NAME} --namespace {NAMESPACE} --replicas={count}");
        self.cluster.control.kubectl.run(&scale)?;
        let is_more = count > self.ready.len();
        let what = if is_more { "pods start" } else { "pods end" };
        let bar = progress(what, self.ready.len().abs_diff(count) as u64);
        let ready = &mut self.ready;
        let mut there: BTreeSet<String> = ready.clone();
        let result = self.watch.until(what, TIME_MAX, |heard| {
            let name = heard.name().to_owned();
            if heard.kind == "DELETED" {
                there.remove(&name);
                ready.remove(&name);
            } else {
                if condition(&heard.object, "Ready") {
                    ready.insert(name.clone());
                }
                there.insert(name);
            }
            let left = if is_more {
                count.abs_diff(ready.len())
            } else {
                there.len().saturating_sub(count)
            };
            bar.set_position(bar.length().unwrap_or_default().saturating_sub(left as u64));
            (there.len() == count && ready.len() == count).then_some(())
        });
        bar.finish_and_clear();
        result
    }
}

fn replicas(node: &str) -> serde_json::Value {
    let labels = json!({"app": NAME});
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeName": node,
                    "terminationGracePeriodSeconds": 1,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "containers": [{"name": "one", "image": PAUSE, "imagePullPolicy": "Never"}],
                },
            },
        },
    })
}
