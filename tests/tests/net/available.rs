//! STATUS fails when an ADD would fail for everybody, and not when an agent is being replaced.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::wait::wait_until;

use super::traces;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);
const NOT_AVAILABLE: u64 = 50;
const LIMITED: u64 = 51;

#[test]
fn an_agent_that_is_away_for_a_minute_is_no_failure() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        well(node)?;
        node.kill_agent();
        well(node)?;
        is_last_seen(node, Duration::from_secs(50))?;
        well(node)?;
        is_last_seen(node, Duration::from_secs(61))?;
        refused(node, NOT_AVAILABLE, "no agent answers")?;
        // Whoever is away, without the pins it is worse.
        let pin = node.bpffs.join("programs/pw_from_net");
        fs::remove_file(&pin)?;
        refused(node, LIMITED, "pw_from_net is missing")?;
        is_last_seen(node, Duration::ZERO)?;
        refused(node, LIMITED, "pw_from_net is missing")?;
        node.spawn_agent()?;
        node.wait_for_agent()?;
        well(node)
    });
}

#[test]
fn a_node_without_an_agent_or_without_pins_is_not_available() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        node.kill_agent();
        let file = node.directory.join("plugin.json");
        let content = fs::read(&file)?;
        fs::remove_file(&file)?;
        refused(node, NOT_AVAILABLE, "plugin.json is missing")?;
        fs::write(&file, r#"{"protocol":99,"bpffs":"/nowhere"}"#)?;
        refused(node, NOT_AVAILABLE, "the same release")?;
        fs::write(&file, content)?;
        well(node)?;
        for pin in ["programs/pw_to_pod", "maps/pw_pods"] {
            let pin = node.bpffs.join(pin);
            fs::remove_file(&pin)?;
            refused(node, LIMITED, &format!("{} is missing", pin.display()))?;
            node.spawn_agent()?;
            wait_until("whole pins", SEEN_TIME_MAX, || well(node))?;
            node.kill_agent();
        }
        Ok(())
    });
}

#[test]
fn a_pool_is_named_before_it_is_full_and_until_there_is_room() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        traces::start_with_small_pool(cluster)?;
        let node = cluster.node(1);
        let pods: Vec<Pod> = (0..traces::SMALL_POOL)
            .map(|used| {
                well(node)?;
                let problems = node.status()?["problems"].to_string();
                let is_warned =
                    problems.contains(&format!("{used} of 5 addresses of 10.244.1.0/29"));
                ensure!(is_warned == (used == 4), "{used} of 5: {problems}");
                node.pod()
            })
            .collect::<Result<_>>()?;
        refused(node, NOT_AVAILABLE, "10.244.1.0/29 are in use")?;
        let error = node.bare_pod()?.call("ADD")?.err().context("an address too many")?;
        ensure!(error["code"] == NOT_AVAILABLE, "{error}");
        pods[0].delete()?;
        well(node)
    });
}

#[test]
fn a_state_directory_that_takes_no_file_is_named() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let attachments = node.directory.join("attachments");
        fs::remove_dir(&attachments)?;
        fs::write(&attachments, "")?;
        refused(node, NOT_AVAILABLE, "attachments")?;
        let error = node.bare_pod()?.call("ADD")?.err().context("ADD worked")?;
        ensure!(error["code"] == 5, "{error}");
        fs::remove_file(&attachments)?;
        wait_until("a directory again", SEEN_TIME_MAX, || well(node))
    });
}

#[test]
fn what_add_refuses_status_refuses() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let mut configuration = node.cni_configuration();
        configuration["runtimeConfig"] = json!({ "bandwidth": { "ingressRate": 1 } });
        let error = status(node, &configuration)?.err().context("it worked")?;
        ensure!(error["code"] == 2, "{error}");
        Ok(())
    });
}

fn well(node: &Node) -> Result<()> {
    let result = status(node, &node.cni_configuration())?;
    let document = result.map_err(|error| anyhow!("STATUS: {error}"))?;
    ensure!(document.is_null(), "{document}");
    Ok(())
}

fn refused(node: &Node, code: u64, wanted: &str) -> Result<()> {
    let error = status(node, &node.cni_configuration())?.err().context("STATUS worked")?;
    ensure!(error["code"] == code && error.to_string().contains(wanted), "{wanted}: {error}");
    Ok(())
}

fn status(node: &Node, configuration: &Value) -> Result<Result<Value, Value>> {
    let call = CniCall { command: "STATUS", container_id: "", netns: Path::new("") };
    node.cni_with(&call, configuration)
}

/// As if the agent had not given a sign of life for so long.
fn is_last_seen(node: &Node, ago: Duration) -> Result<()> {
    let file = File::options().write(true).open(node.directory.join("plugin.json"))?;
    Ok(file.set_modified(SystemTime::now() - ago)?)
}
