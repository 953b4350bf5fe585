//! What an agent's token may do, and what not.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::wait::wait_until;
use serde_json::Value;

use crate::agent::{NAMESPACE, pods};
use crate::cluster::Cluster;
use crate::kubectl::{Ask, Kubectl};
use crate::report::Report;

const NAME: &str = "podwire";
/// The API server learns of a policy by a watch.
const POLICY_TIME_MAX: Duration = Duration::from_secs(30);
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const LABEL: &str = r#"{"metadata":{"labels":{"example.com/tried":"true"}}}"#;
/// Changes of a node's object that agents make: part of it, kind, and change.
const OWN: [(&str, &str, &str); 2] = [
    (
        "",
        JSON,
        r#"[{"op":"add","path":"/spec/taints/-",
            "value":{"key":"podwire.dev/agent-not-ready","effect":"NoSchedule"}}]"#,
    ),
    (
        "/status",
        STRATEGIC,
        r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","message":"tried"}]}}"#,
    ),
];
/// What the same rights would let them change.
const NOT_THEIRS: [(&str, &str, &str); 11] = [
    ("", MERGE, LABEL),
    ("/status", MERGE, LABEL),
    ("", MERGE, r#"{"spec":{"unschedulable":true}}"#),
    ("", MERGE, r#"{"spec":{"taints":[]}}"#),
    ("", MERGE, r#"{"spec":{"providerID":"tried://1"}}"#),
    ("/status", MERGE, r#"{"status":{"capacity":{"example.com/dongle":"4"}}}"#),
    ("/status", MERGE, r#"{"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":1}}}}"#),
    ("/status", MERGE, r#"{"status":{"images":[{"names":["tried"]}]}}"#),
    ("/status", MERGE, r#"{"status":{"nodeInfo":{"kubeletVersion":"v0.0.0"}}}"#),
    (
        "/status",
        MERGE,
        r#"{"status":{"volumesAttached":[{"name":"tried","devicePath":"/dev/tried"}]}}"#,
    ),
    (
        "/status",
        STRATEGIC,
        r#"{"status":{"conditions":[{"type":"Ready","status":"False","message":"tried"}]}}"#,
    ),
];
/// What the manifest gives no right to.
const OUTSIDE: [(&str, &str); 6] = [
    ("GET", "/api/v1/pods"),
    ("GET", "/api/v1/namespaces/kube-system/secrets"),
    ("GET", "/api/v1/namespaces/default/events"),
    ("PATCH", "/api/v1/namespaces/default?dryRun=All"),
    ("PATCH", "/apis/apps/v1/namespaces/kube-system/daemonsets/podwire?dryRun=All"),
    ("DELETE", "/api/v1/nodes/NODE?dryRun=All"),
];

/// A server that streams lists, as that beside containerd 2, is asked for none.
const OF_OLDER: &str = "list nodes";

pub(super) fn run(cluster: &Cluster, report: &mut Report) {
    let kubectl = &cluster.control.kubectl;
    // Before anything is asked here with an agent's token.
    report.check("agents use each right that is listed, and are refused nothing", || used(cluster));
    report.check("an agent changes its taint and its condition of its own node alone", || {
        own_node(kubectl)
    });
    report.check("an agent may do no more than is listed", || outside(kubectl));
}

/// What the manifest lets agents do: verb and resource.
fn listed(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    let mut rights = BTreeSet::new();
    for object in [format!("clusterrole {NAME}"), format!("role {NAME} --namespace default")] {
        let object = kubectl.get(&object)?;
        for rule in object["rules"].as_array().context("rules")? {
            let words =
                |key: &str| rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            for resource in words("resources") {
                rights.extend(words("verbs").map(|verb| format!("{verb} {resource}")));
            }
        }
    }
    Ok(rights)
}

fn used(cluster: &Cluster) -> Result<String> {
    let mut used = BTreeSet::new();
    let asked = cluster.control.asked_by_agents()?;
    for request in &asked {
        let object = &request["objectRef"];
        let subresource = object["subresource"].as_str().map(|name| format!("/{name}"));
        let resource = object["resource"].as_str().context("a request for no resource")?;
        let verb = request["verb"].as_str().context("a request without a verb")?;
        let code = request["responseStatus"]["code"].as_u64().unwrap_or(0);
        ensure!(code != 401 && code != 403, "an agent was refused something: {request}");
        if (200..300).contains(&code) {
            used.insert(format!("{verb} {resource}{}", subresource.unwrap_or_default()));
        }
    }
    let mut listed = listed(&cluster.control.kubectl)?;
    let streams = cluster.plan.containerd.is_newest();
    ensure!(listed.contains(OF_OLDER), "no right to {OF_OLDER}: older servers stream none");
    if streams {
        listed.remove(OF_OLDER);
    }
    ensure!(used == listed, "listed: {listed:?}; used: {used:?}");
    let way = if streams { "a stream" } else { "pages" };
    Ok(format!("{} rights in {} requests, nodes as {way}", used.len(), asked.len()))
}

/// An agent, its node, and another one.
fn agent(kubectl: &Kubectl) -> Result<[String; 3]> {
    let pods = pods(kubectl)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let [pod, other, ..] = &pods[..] else { bail!("fewer than two agents: {pods:?}") };
    let node = |pod: &Value| text(&pod["spec"]["nodeName"]);
    Ok([text(&pod["metadata"]["name"]), node(pod), node(other)])
}

/// A token as the kubelet gives it to a pod, or one that is bound to nothing.
fn token(kubectl: &Kubectl, pod: Option<&str>) -> Result<String> {
    let bound = pod.map(|pod| format!("--bound-object-kind Pod --bound-object-name {pod}"));
    let bound = bound.unwrap_or_default();
    let token = kubectl.run(&format!("create token {NAME} --namespace {NAMESPACE} {bound}"))?;
    Ok(token.trim().to_owned())
}

/// Judges a change of a node's object; nothing is changed.
fn change(
    kubectl: &Kubectl,
    token: &str,
    node: &str,
    (part, kind, change): (&str, &str, &str),
) -> Result<(String, String)> {
    let path = format!("/api/v1/nodes/{node}{part}?dryRun=All");
    kubectl.ask_with(token, &Ask { method: "PATCH", path: &path, body: Some((kind, change)) })
}

fn refused((status, answer): (String, String), why: &str) -> Result<()> {
    ensure!(status == "403" && answer.contains(why), "{status}: {answer}");
    Ok(())
}

fn own_node(kubectl: &Kubectl) -> Result<String> {
    const WHY: &str = "its own node alone";
    let policy = kubectl.get("validatingadmissionpolicy podwire")?;
    let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
    ensure!(warnings.is_null(), "the API server warns of the policy: {warnings}");
    let [pod, own, other] = agent(kubectl)?;
    let (bound, unbound) = (token(kubectl, Some(&pod))?, token(kubectl, None)?);
    wait_until("the policy", POLICY_TIME_MAX, || {
        refused(change(kubectl, &bound, &other, OWN[0])?, WHY)
    })?;
    for what in OWN {
        let (status, answer) = change(kubectl, &bound, &own, what)?;
        ensure!(status == "200", "{what:?}: {status}: {answer}");
        refused(change(kubectl, &bound, &other, what)?, WHY).context("of another node")?;
        refused(change(kubectl, &unbound, &own, what)?, WHY).context("with a token of no pod")?;
    }
    for what in NOT_THEIRS {
        refused(change(kubectl, &bound, &own, what)?, "changes nothing but the taint")
            .with_context(|| format!("{what:?}"))?;
    }
    // As docs/kubernetes.md says it, for clusters in which it refuses everything.
    kubectl.run("delete validatingadmissionpolicybinding podwire --dry-run=server")?;
    Ok(format!("{pod} may change its taint and its condition of {own}, and nothing of {other}"))
}

fn outside(kubectl: &Kubectl) -> Result<String> {
    let [pod, own, _] = agent(kubectl)?;
    let token = token(kubectl, Some(&pod))?;
    for (method, path) in OUTSIDE {
        let path = path.replace("NODE", &own);
        let body = (method == "PATCH").then_some((MERGE, LABEL));
        let answer = kubectl.ask_with(&token, &Ask { method, path: &path, body })?;
        refused(answer, "is forbidden: User ").with_context(|| format!("{method} {path}"))?;
    }
    Ok(format!("{} other requests are refused", OUTSIDE.len()))
}
