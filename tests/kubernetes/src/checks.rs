//! What must hold for pods of a cluster.

mod client;
mod matrix;
mod objects;
pub(crate) mod own;
mod rights;
mod services;
mod shipped;
mod tools;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::client::Party;
use crate::cluster::Cluster;
use crate::network::Network;
use crate::report::Report;

/// Namespace of all pods of the checks.
const NAMESPACE: &str = "podwire-e2e";
const PODS_TIME_MAX: Duration = Duration::from_secs(120);

/// Makes pods, looks at them, removes them.
pub(crate) fn run(cluster: &Cluster, report: &mut Report) -> Result<()> {
    shipped::run(&cluster.control.kubectl, report);
    if cluster.plan.network != Network::Bridge {
        rights::run(&cluster.control.kubectl, report);
        report.check("agents look after their node's object", || own::look(cluster));
    }
    let before = cluster.kept().context("before the first pod")?;
    let world = client::serve_world(&cluster.fabric)?;
    let mut parties = Vec::new();
    let started = report.check("pods start; probes by http, tcp, exec, grpc", || {
        cluster.control.kubectl.apply(&objects::all(&cluster.members)?)?;
        let pods = cluster.control.kubectl.wait_for_pods(NAMESPACE, PODS_TIME_MAX)?;
        parties = client::parties(&pods)?;
        Ok(format!("{} are Ready", pods["items"].as_array().map_or(0, Vec::len)))
    });
    if started {
        parties.push(Party::world());
        matrix::run(cluster, &parties, report);
        services::run(cluster, &parties, report);
        tools::run(cluster, report);
    }
    drop(world);
    report.check("pods deleted: nothing of them is left", || {
        let during = cluster.kept()?;
        let delete = format!("delete namespace {NAMESPACE} --wait=false");
        cluster.control.kubectl.run(&delete)?;
        nothing_left(cluster, &before, &during)
    });
    Ok(())
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
