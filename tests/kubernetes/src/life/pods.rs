//! The pods whose packets are counted, and those that come and go.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::flow::Flow;
use harness::namespace::Namespace;
use harness::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::agent::{process_named, processes};
use crate::cluster::Cluster;
use crate::pod::{self, Pod};

/// Of all pods here.
pub(super) const NAMESPACE: &str = "podwire-life";
/// The pod on the second node.
pub(super) const FAR: &str = "far";
/// How the names of pods begin whose network is made again.
pub(super) const AGAIN: &str = "again";
/// The deployment whose pods come and go.
const CHURN: &str = "churn";
/// So many of them.
pub(super) const AT_ONCE: usize = 6;
const PODS_TIME_MAX: Duration = Duration::from_secs(120);

/// Two on the first node, one on the second, and one on each whose network is made again.
pub(super) fn start(cluster: &Cluster) -> Result<Vec<Pod>> {
    let kubectl = &cluster.control.kubectl;
    let (first, second) = (&cluster.nodes[0].name, &cluster.nodes[1].name);
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    })];
    let [again, again_far] = [1, 2].map(|number| format!("{AGAIN}-{number}"));
    for (name, node) in
        [("near", first), ("beside", first), (FAR, second), (&again, first), (&again_far, second)]
    {
        objects.push(pod::object(name, NAMESPACE, node)?);
    }
    objects.push(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CHURN, "namespace": NAMESPACE},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": CHURN}},
            "template": {
                "metadata": {"labels": {"app": CHURN}},
                "spec": pod::spec()?,
            },
        },
    }));
    kubectl.apply(&objects)?;
    read(cluster)
}

/// Waits until all are Ready, and looks at them.
pub(super) fn read(cluster: &Cluster) -> Result<Vec<Pod>> {
    let pods = cluster.control.kubectl.wait_for_pods(NAMESPACE, PODS_TIME_MAX)?;
    pods["items"].as_array().context("items")?.iter().map(Pod::read).collect()
}

/// Ends what holds a pod's network: its kubelet has the runtime delete that network and add another one, also without
/// an API server. Returns the pod as it is then.
pub(super) fn remake(pod: &Pod) -> Result<Pod> {
    let holder = process_named("pause", &pod.uid)?;
    kill(Pid::from_raw(holder.cast_signed()), Signal::SIGKILL)?;
    wait_until("another network of a pod", PODS_TIME_MAX, || {
        for process in processes(&pod.uid)? {
            let sandbox = fs::read_link(process.join("ns/net"))?;
            if sandbox == pod.sandbox {
                continue;
            }
            let namespace = Namespace::borrow(&process.join("ns/net"))?;
            let shown = namespace.run("ip -json address show dev eth0 scope global")?;
            let shown: Value = serde_json::from_str(&shown)?;
            let shown = shown[0]["addr_info"].as_array().context("addresses")?.iter();
            let addresses: Vec<IpAddr> =
                shown.filter_map(|it| it["local"].as_str()?.parse().ok()).collect();
            ensure!(addresses.len() == pod.addresses.len(), "{} has {addresses:?}", pod.name);
            return Ok(Pod { namespace, addresses, sandbox, ..pod.clone() });
        }
        bail!("{} has that of before", pod.name)
    })
}

/// On one node, and both ways between two.
pub(super) fn flows(pods: &[Pod]) -> Vec<Flow> {
    let flow = |from: &str, to: &str| {
        let find = |name: &str| pods.iter().find(|pod| pod.name == name);
        let (from, to) = (find(from)?, find(to)?);
        Some(Flow {
            name: format!("{} to {}", from.name, to.name),
            from: from.namespace.clone(),
            to: to.namespace.clone(),
            addresses: to.addresses.clone(),
        })
    };
    [("near", "beside"), ("near", FAR), (FAR, "near")]
        .into_iter()
        .filter_map(|(from, to)| flow(from, to))
        .collect()
}

/// Removes all of them.
pub(super) fn remove(cluster: &Cluster) -> Result<()> {
    let delete = format!("delete namespace {NAMESPACE} --wait=false");
    cluster.control.kubectl.run(&delete)?;
    wait_until("the end of the pods", PODS_TIME_MAX, || {
        let namespaces = cluster.control.kubectl.get("namespaces")?;
        let mut names = namespaces["items"].as_array().context("items")?.iter();
        ensure!(names.all(|it| it["metadata"]["name"] != NAMESPACE), "they are there");
        Ok(())
    })
}

/// Says how many pods shall come and go.
pub(super) fn scale(cluster: &Cluster, replicas: usize) -> Result<()> {
    let scale = format!("scale deployment {CHURN} --namespace {NAMESPACE} --replicas={replicas}");
    cluster.control.kubectl.run(&scale).map(drop)
}

/// Waits until as many as shall be are Ready, and no others are there.
pub(super) fn settle(cluster: &Cluster, replicas: usize) -> Result<()> {
    wait_until("the pods that come and go", PODS_TIME_MAX, || {
        let pods = format!("pods --namespace {NAMESPACE} --selector app={CHURN}");
        let pods = cluster.control.kubectl.get(&pods)?;
        let there = pods["items"].as_array().context("items")?;
        let ready = there.iter().filter(|pod| crate::kubectl::condition(pod, "Ready")).count();
        ensure!(there.len() == replicas && ready == replicas, "{ready} of {} Ready", there.len());
        Ok(())
    })
}
