//! What an agent's token may do, and what not.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::wait::wait_until;
use serde_json::Value;

use crate::kubectl::{Ask, Kubectl};
use crate::report::Report;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "podwire";
/// The API server learns of a policy by a watch.
const POLICY_TIME_MAX: Duration = Duration::from_secs(30);
const MERGE: &str = "application/merge-patch+json";
const LABEL: &str = r#"{"metadata":{"labels":{"example.com/tried":"true"}}}"#;
/// What the manifest gives no right to.
const OUTSIDE: [(&str, &str); 6] = [
    ("GET", "/api/v1/pods"),
    ("GET", "/api/v1/namespaces/kube-system/secrets"),
    ("GET", "/api/v1/namespaces/default/events"),
    ("PATCH", "/api/v1/namespaces/default?dryRun=All"),
    ("PATCH", "/apis/apps/v1/namespaces/kube-system/daemonsets/podwire?dryRun=All"),
    ("DELETE", "/api/v1/nodes/NODE?dryRun=All"),
];

pub(super) fn run(kubectl: &Kubectl, report: &mut Report) {
    report.check("an agent changes the object of its own node alone", || own_node(kubectl));
    report.check("an agent may do no more than is listed", || outside(kubectl));
}

/// An agent, its node, and another one.
fn agent(kubectl: &Kubectl) -> Result<[String; 3]> {
    let pods = format!("pods --namespace {NAMESPACE} --selector app.kubernetes.io/name={NAME}");
    let pods = kubectl.get(&pods)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let [pod, other, ..] = &pods["items"].as_array().context("items")?[..] else {
        bail!("fewer than two agents: {pods}")
    };
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
fn change(kubectl: &Kubectl, token: &str, node: &str) -> Result<(String, String)> {
    let path = format!("/api/v1/nodes/{node}?dryRun=All");
    kubectl.ask_with(token, &Ask { method: "PATCH", path: &path, body: Some((MERGE, LABEL)) })
}

fn refused((status, answer): (String, String), why: &str) -> Result<()> {
    ensure!(status == "403" && answer.contains(why), "{status}: {answer}");
    Ok(())
}

fn own_node(kubectl: &Kubectl) -> Result<String> {
    const WHY: &str = "its own node alone";
    let [pod, own, other] = agent(kubectl)?;
    let (bound, unbound) = (token(kubectl, Some(&pod))?, token(kubectl, None)?);
    wait_until("the policy", POLICY_TIME_MAX, || refused(change(kubectl, &bound, &other)?, WHY))?;
    for part in ["", "/status"] {
        let [own, other] = [&own, &other].map(|node| format!("{node}{part}"));
        let (status, answer) = change(kubectl, &bound, &own)?;
        ensure!(status == "200", "{own}: {status}: {answer}");
        refused(change(kubectl, &bound, &other)?, WHY).context("of another node")?;
        refused(change(kubectl, &unbound, &own)?, WHY).context("with a token of no pod")?;
    }
    Ok(format!("{pod} may change {own}, and not {other}"))
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
