//! What people get wrong, and what they read then.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::wait::wait_until;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);

/// Runs something that must fail soon; returns what it says.
fn refusal(mut command: Command) -> Result<String> {
    let output = command::output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it worked: {said}");
    Ok(said)
}

/// The agent's command, ended when it runs on.
fn limited(agent: &Command) -> Command {
    let mut limited = command::limited("nsenter");
    limited.args(agent.get_args());
    limited
}

#[test]
fn status_is_whole() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.pod()?;
        let status = node.status()?;
        ensure!(status["node"]["name"] == "node1" && status["node"]["encapsulation"] == "vxlan");
        ensure!(status["node"]["podMtu"] == 1450, "{}", status["node"]);
        ensure!(status["pods"][0]["containerId"] == *pod.container_id, "{}", status["pods"]);
        ensure!(status["peers"][0]["name"] == "node2", "{}", status["peers"]);
        ensure!(status["programs"].as_array().map(Vec::len) == Some(5), "{}", status["programs"]);
        let counters = status["counters"].as_array().map(Vec::len);
        ensure!(counters.is_some_and(|counters| counters > 30), "{counters:?} counters");
        let table = node.status_text(&[])?;
        ensure!(table.contains("node2") && table.contains(&pod.host_ifname()?), "{table}");
        Ok(())
    });
}

#[test]
fn a_second_agent_is_refused() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let said = refusal(limited(&node.agent_command()))?;
        ensure!(said.contains("another agent") && said.contains("--state-dir"), "{said}");
        // The first one goes on.
        node.status().map(drop)
    });
}

#[test]
fn what_is_not_ours_among_the_pins_is_named() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        fs::create_dir_all(node.bpffs.join("maps"))?;
        let pin = node.bpffs.join("maps/pw_pods");
        command::run(
            Command::new("bpftool")
                .args(["map", "create"])
                .arg(&pin)
                .args("type hash key 4 value 4 entries 8 name foreign".split(' ')),
        )?;
        let said = refusal(limited(&node.agent_command()))?;
        ensure!(said.contains("pw_pods"), "{said}");
        Ok(())
    });
}

#[test]
fn a_bad_node_file_stops_a_start_and_not_a_running_agent() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        let good = fs::read_to_string(cluster.run().directory().join("nodes.toml"))?;
        let overlapping = good.replace("10.244.2.0/24", "10.244.0.0/16");
        let cases = [
            (good.replace("[[node]]", "[[node"), "nodes.toml:1:"),
            (overlapping, "overlaps"),
            (good.replace("192.168.1.12", "192.168.1.11"), "192.168.1.11"),
            (good.replace("\"fd00:10:244:2::/64\"", "\"::ffff:10.9.0.0/112\""), "IPv4-mapped"),
            (good.replace("\"node1\"", "\"other\""), "node1"),
            (good.replace("addresses", "adresses"), "adresses"),
        ];
        for (text, wanted) in cases {
            cluster.write_node_file(&text)?;
            wait_until(wanted, SEEN_TIME_MAX, || {
                let problems = node.status()?["problems"].to_string();
                ensure!(problems.contains(wanted), "{problems}");
                ensure!(problems.contains("nodes.toml"), "{problems}");
                Ok(())
            })?;
            let peers = node.status()?["peers"].as_array().map(Vec::len);
            ensure!(peers == Some(1), "{wanted}: {peers:?} peers are left");
        }
        cluster.write_node_file(&good)?;
        wait_until("no problem", SEEN_TIME_MAX, || {
            let problems = node.status()?["problems"].clone();
            ensure!(problems.as_array().is_some_and(Vec::is_empty), "{problems}");
            Ok(())
        })?;
        cluster.write_node_file(&good.replace("[[node]]", "[[node"))?;
        node.kill_agent();
        let said = refusal(limited(&node.agent_command()))?;
        ensure!(said.contains("nodes.toml:1:"), "{said}");
        Ok(())
    });
}

#[test]
fn a_node_that_joins_and_leaves_is_followed() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(1);
        let good = fs::read_to_string(cluster.run().directory().join("nodes.toml"))?;
        let joined = format!(
            "{good}[[node]]\nname = \"node9\"\naddresses = [\"192.168.1.19\"]\n\
             pod_cidrs = [\"10.244.9.0/24\", \"fd00:10:244:9::/64\"]\n"
        );
        let peers = |status: &Value| status["peers"].as_array().map(Vec::len);
        for (text, count) in [(&joined, 2), (&good, 1)] {
            cluster.write_node_file(text)?;
            wait_until("the peers", SEEN_TIME_MAX, || {
                let status = node.status()?;
                ensure!(
                    peers(&status) == Some(count) && status["settled"] == true,
                    "{}",
                    status["peers"]
                );
                Ok(())
            })?;
        }
        Ok(())
    });
}
