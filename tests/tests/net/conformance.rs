//! The conformance kit on the plugin, on a node with its agent.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::Node;

use super::{delegates, ipam, traces};

#[test]
fn the_plugin_keeps_the_specification() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        traces::start_with_small_pool(cluster)?;
        keeps_the_specification(cluster.node(1), &cluster.node(1).cni_configuration(), &[])
    });
}

/// Its rules of delegation apply here alone.
#[test]
fn the_plugin_keeps_the_specification_with_a_delegated_plugin() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        traces::start_with_small_pool(cluster)?;
        let node = cluster.node(1);
        let path = delegates::newer_host_local(node)?;
        let mut configuration = node.cni_configuration();
        configuration["ipam"] = ipam::host_local_ranges(node, 1);
        configuration["ipam"]["ranges"] =
            json!([[{ "subnet": "10.244.1.0/29" }], [{ "subnet": "fd00:10:244:1::/125" }]]);
        keeps_the_specification(node, &configuration, &["--cni-path", &path])
    });
}

fn keeps_the_specification(node: &Node, configuration: &Value, further: &[&str]) -> Result<()> {
    let config = node.directory.join("conformance.json");
    std::fs::write(&config, configuration.to_string())?;
    let kit = binaries::conformance_kit()?;
    let mut kit = node.namespace.service(kit, true);
    kit.arg("--plugin").arg(binaries::plugin()?).arg("--config").arg(config);
    kit.args(["--host", "current", "--output", "json"]);
    kit.args(["--pool", &traces::SMALL_POOL.to_string()]).args(further);
    let output = command::output(&mut kit)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {stderr}", output.status))?;
    let surprises = surprises(&report)?;
    ensure!(surprises.is_empty(), "{}", surprises.join("\n"));
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    let delegates = configuration["ipam"].is_object();
    for row in report["checks"].as_array().context("a list of checks")? {
        let is_of_delegation =
            row["check"].as_str().is_some_and(|id| id.starts_with("delegation/"));
        ensure!(!is_of_delegation || (row["result"] == "ok") == delegates, "{row}");
    }
    Ok(())
}

fn surprises(report: &Value) -> Result<Vec<String>> {
    let checks = report["checks"].as_array().context("a list of checks")?;
    ensure!(!checks.is_empty(), "no check was run");
    let expected = ["ok", "does not apply"];
    let is_expected = |row: &&Value| expected.iter().any(|word| row["result"] == *word);
    let text = |row: &Value| format!("{} {}: {}", row["check"], row["result"], row["text"]);
    Ok(checks.iter().filter(|row| !is_expected(row)).map(text).collect())
}
