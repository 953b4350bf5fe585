//! The commands by which the README looks inside, on a node with a pod.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::node::Node;
use tests::render::file;
use tests::{bpf, command};

const TITLE: &str = "## Look inside\n";
/// What each shows.
const SHOWS: [(&str, &str); 9] = [
    ("podwire-agent status --output json", "\"settled\""),
    ("podwire-agent status", "the data plane is as it should be"),
    ("podwire-agent doctor", "pinned programs"),
    ("bpftool map dump pinned /sys/fs/bpf/podwire/maps/pw_pods", "\"kind\""),
    ("bpftool map dump pinned /sys/fs/bpf/podwire/maps/pw_nodes", "\"prefix"),
    ("bpftool prog show", "name pw_from_pod"),
    // Debian 12 has release 7.1, which does not know TCX.
    ("bpftool net show", "tc:"),
    ("nft list table inet podwire", "masquerade"),
    ("ip -details link show podwire0", "podwire0"),
];

#[test]
fn what_the_readme_looks_at_is_there() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        let _pod = node.pod()?;
        let readme = fs::read_to_string(file("README.md"))?;
        let (_, section) = readme.split_once(TITLE).context(TITLE)?;
        let lines = section.lines().skip_while(|line| line.is_empty());
        let commands: Vec<&str> = lines
            .map_while(|line| line.strip_prefix("    "))
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .collect();
        ensure!(commands.len() == SHOWS.len(), "{commands:?}");
        for told in commands {
            let known = SHOWS.iter().find(|(command, _)| *command == told);
            let (_, shown) = known.with_context(|| format!("no test knows what `{told}` shows"))?;
            let said = run(node, told)?;
            ensure!(said.contains(shown), "{told}: no {shown} in {said}");
        }
        let attached = bpf::on_tcx(&node.namespace)?;
        ensure!(attached.iter().any(|it| it == "eth0 ingress pw_from_net"), "{attached:?}");
        Ok(())
    });
}

/// With the places of this node.
fn run(node: &Node, told: &str) -> Result<String> {
    let mut words = told.split(' ');
    if words.next() != Some("podwire-agent") {
        return node
            .namespace
            .run(&told.replace("/sys/fs/bpf/podwire", &node.bpffs.to_string_lossy()));
    }
    let verb = words.next().context("a verb")?;
    if verb == "status" {
        return node.status_text(&words.collect::<Vec<_>>());
    }
    let mut doctor = node.agent_verb(verb);
    let output = command::output(doctor.args(words))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
