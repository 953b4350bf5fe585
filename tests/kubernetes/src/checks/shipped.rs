//! The Helm chart and the Kustomize base, as the API server judges them. The manifest is in use.

use anyhow::{Context as _, Result, ensure};
use harness::render::{file, render};
use serde_json::{Value, json};

use crate::kubectl::Kubectl;
use crate::report::Report;

/// Service account, two roles and a policy with their bindings, DaemonSet.
const OBJECTS: usize = 8;

pub(crate) fn run(kubectl: &Kubectl, report: &mut Report) {
    report.check("the API server takes the Helm chart", || {
        // What defaults leave out.
        let more = json!({
            "imagePullSecrets": [{"name": "registry"}],
            "kubernetesService": {"host": "fd00::1"},
            "metrics": {"address": "127.0.0.1"},
            "podAnnotations": {"example.com/scrape": "true"},
            "updateStrategy": {"type": "OnDelete"},
        });
        for values in [json!({}), more] {
            ensure_taken(&kubectl.try_objects(&chart(&values)?)?)?;
        }
        Ok(format!("{OBJECTS} objects"))
    });
    report.check("the API server takes the Kustomize base", || {
        ensure_taken(&kubectl.try_directory(&file("deploy"))?)?;
        Ok(format!("{OBJECTS} objects"))
    });
}

fn chart(values: &Value) -> Result<Vec<Value>> {
    let release = json!({"release": "podwire", "namespace": "kube-system", "values": values});
    let answer = render("chart", "deploy/helm/podwire", release)?;
    answer["objects"].as_array().cloned().context("objects")
}

fn ensure_taken(said: &str) -> Result<()> {
    let taken = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
    ensure!(taken == OBJECTS, "{taken} of {OBJECTS} objects:\n{said}");
    Ok(())
}
