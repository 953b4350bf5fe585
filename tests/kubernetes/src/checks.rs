//! What must hold for pods of a cluster.

mod asked;
mod client;
mod matrix;
mod objects;
pub(crate) mod own;
mod rights;
mod services;
mod shipped;
mod tools;

pub(crate) use self::shipped::run as shipped;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wait::wait_until;

use self::client::Party;
use crate::cluster::Cluster;
use crate::kubectl::Kubectl;
use crate::network::Network;
use crate::report::Report;
use crate::view::View;

/// Namespace of all pods of the checks.
const NAMESPACE: &str = "podwire-e2e";
/// Label of that namespace.
const MADE_BY: &str = "app.kubernetes.io/managed-by";
const END_TIME_MAX: Duration = Duration::from_secs(120);
const PODS_TIME_MAX: Duration = Duration::from_secs(120);

/// Makes pods, looks at them, removes them.
pub(crate) fn run(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let kubectl = &cluster.control.kubectl;
    shipped(kubectl, report);
    if cluster.plan.network != Network::Bridge {
        report.check("agents look after their node's object", || own::look(cluster));
        rights::run(cluster, report);
        report.check("status and doctor in the agents' pods", || asked::look(cluster));
    }
    let before = cluster.kept().context("before the first pod")?;
    let world = client::serve_world(&cluster.fabric)?;
    pods(&cluster.view(), report);
    drop(world);
    report.check("pods deleted: nothing of them is left", || {
        let during = cluster.kept()?;
        delete(kubectl)?;
        nothing_left(cluster, &before, &during)
    });
    Ok(())
}

/// Makes pods and looks at them.
pub(crate) fn pods(view: &View<'_>, report: &mut Report) {
    let mut parties = Vec::new();
    let started = report.check("pods start; probes by http, tcp, exec, grpc", || {
        view.kubectl.apply(&objects::all(view)?)?;
        let pods = view.kubectl.wait_for_pods(NAMESPACE, PODS_TIME_MAX)?;
        parties = client::parties(&pods, view.families())?;
        Ok(format!("{} are Ready", pods["items"].as_array().map_or(0, Vec::len)))
    });
    if started {
        parties.extend(view.world.map(|_| Party::world()));
        matrix::run(view, &parties, report);
        services::run(view, &parties, report);
        tools::run(view, report);
    }
}

/// Removes what a run that was killed left.
///
/// # Errors
/// When it does not end, or the namespace is somebody else's.
pub(crate) fn clear(kubectl: &Kubectl) -> Result<String> {
    let there = |more: &str| {
        kubectl.run(&format!("get namespaces {more} --ignore-not-found --output name"))
    };
    if there(NAMESPACE)?.is_empty() {
        return Ok("nothing".to_owned());
    }
    let ours = format!("--selector {MADE_BY}={NAMESPACE}");
    ensure!(
        there(&ours)?.contains(NAMESPACE),
        "the namespace {NAMESPACE} is there and has no label {MADE_BY}={NAMESPACE}: delete it if nobody needs it"
    );
    delete(kubectl)?;
    wait_until("the end of the namespace", END_TIME_MAX, || {
        ensure!(there(NAMESPACE)?.is_empty(), "{NAMESPACE} is still there");
        Ok("its namespace".to_owned())
    })
}

/// Has all of them deleted.
pub(crate) fn delete(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&format!("delete namespace {NAMESPACE} --wait=false")).map(drop)
}

/// Whether a pod, as `namespace/name`, is one of the checks.
pub(crate) fn is_own(pod: &str) -> bool {
    pod.split_once('/').is_some_and(|(namespace, _)| namespace == NAMESPACE)
}

fn nothing_left(
    cluster: &Cluster,
    before: &BTreeSet<String>,
    during: &BTreeSet<String>,
) -> Result<String> {
    // Had nothing been found, it would be looked for in the wrong place.
    for kind in cluster.plan.network.kinds() {
        let of_kind = |all: &BTreeSet<String>| {
            all.iter().filter(|what| what.contains(&format!(": {kind} "))).count()
        };
        ensure!(of_kind(during) > of_kind(before), "pods had no {kind}: {during:?}");
    }
    cluster.wait_until_kept(before)?;
    Ok(format!("{} interfaces, files, entries, links are gone", during.len() - before.len()))
}
