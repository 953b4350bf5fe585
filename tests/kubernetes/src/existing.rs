//! A cluster that is there already, with Podwire in it: what its users see of it. Nothing but namespaces of the checks'
//! own is made, and they are removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::cluster::Mode;
use harness::wait::wait_until;
use serde_json::Value;

use crate::agent::{self, NAMESPACE};
use crate::kubectl::{Kubectl, condition};
use crate::network::{Member, Network};
use crate::report::Report;
use crate::view::{View, read_members};
use crate::{checks, programs, suite};

const END_TIME_MAX: Duration = Duration::from_secs(90);

/// As tables show it.
pub(crate) fn name(kubeconfig: &Path) -> String {
    format!("the cluster of {}", kubeconfig.display())
}

/// Looks at pods and services in it, and runs sets of Kubernetes' own specifications.
pub(crate) fn run(
    kubeconfig: &Path,
    suites: &[String],
    processes: u32,
    report: &mut Report,
) -> Result<()> {
    let kubectl = Kubectl::here(kubeconfig)?;
    let mut members = Vec::new();
    if !report.check("nodes that are Ready, with an agent each", || {
        members = nodes(&kubectl)?;
        Ok(format!("{} nodes", members.len()))
    }) {
        return Ok(());
    }
    // The checks only ask whose addresses backends see, which is the same in all modes.
    let network = Network::Podwire(Mode::Direct);
    let view = View { kubectl: &kubectl, members: &members, network, world: None };
    if !report.check("nothing stays of a run that was killed", || checks::clear(&kubectl)) {
        return Ok(());
    }
    checks::shipped(&kubectl, report);
    checks::pods(&view, report);
    report.check("pods deleted: no agent knows of them", || {
        // Whatever the agents say, nothing stays in a cluster that is not ours.
        let during = attachments(&kubectl);
        checks::delete(&kubectl)?;
        ensure!(!during?.is_empty(), "no agent knew of them");
        wait_until("the end of what pods had", END_TIME_MAX, || {
            let left = attachments(&kubectl)?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(String::new())
        })
    });
    let logs = programs::directory()?.join("logs/existing");
    fs::create_dir_all(&logs)?;
    let runner = suite::Runner { kubectl: &kubectl, nodes: members.len(), processes, logs };
    for set in suites {
        report.check(&format!("Kubernetes' own suite: {set}"), || runner.run(set));
    }
    Ok(())
}

/// All nodes that take pods and are Ready.
fn nodes(kubectl: &Kubectl) -> Result<Vec<Member>> {
    let agents = agent::pods(kubectl)?;
    let members = read_members(kubectl, |node| condition(node, "Ready"))?;
    for Member { name, .. } in &members {
        let is_its =
            |agent: &Value| agent["spec"]["nodeName"] == **name && condition(agent, "Ready");
        ensure!(
            agents.iter().any(is_its),
            "no agent is Ready on {name}: `kubectl apply -f deploy/podwire.yaml` comes first, and docs/kubernetes.md \
             says what to do where it does not become Ready"
        );
    }
    let count = members.len();
    ensure!(count >= 2, "{count} Ready nodes with pod networks that take pods: two are needed");
    Ok(members)
}

/// Pods of the checks that agents know of.
fn attachments(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for agent in agent::pods(kubectl)? {
        let name = agent["metadata"]["name"].as_str().context("a name")?;
        let words = ["/podwire-agent", "status", "--output", "json"];
        let status: Value = serde_json::from_str(&kubectl.exec(NAMESPACE, name, &words)?)?;
        let pods = status["pods"].as_array().context("pods")?.iter();
        let pods = pods.filter_map(|pod| pod["pod"].as_str().map(str::to_owned));
        found.extend(pods.filter(|pod| checks::is_own(pod)));
    }
    Ok(found)
}
