//! All that tools show of a node: what is the same before and after must be the same here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::namespace::Namespace;
use tests::node::Node;
use tests::pod::Pod;
use tests::{bpf, command};

/// What each tool says, by the tool.
pub(crate) type Snapshot = BTreeMap<String, String>;

/// Looks at a node, with an agent or without.
pub(crate) fn bare(node: &Node) -> Result<Snapshot> {
    let mut snapshot = network(&node.namespace, "node")?;
    let nft = node.namespace.run("nft --stateless list ruleset")?;
    snapshot.insert("nft list ruleset".to_owned(), nft);
    snapshot.insert("TCX".to_owned(), bpf::on_tcx(&node.namespace)?.join("\n"));
    let mut files = Vec::new();
    if node.bpffs.exists() {
        list(&node.bpffs, false, &mut files)?;
    }
    list(&node.directory, true, &mut files)?;
    files.sort();
    snapshot.insert("files".to_owned(), files.join("\n"));
    Ok(snapshot)
}

/// Looks at a node with an agent, and into the namespace of a pod on it.
pub(crate) fn of(node: &Node, pod: &Pod) -> Result<Snapshot> {
    let mut snapshot = bare(node)?;
    snapshot.extend(network(&pod.namespace, "pod")?);
    for map in ["pw_pods", "pw_nodes", "pw_config"] {
        let mut lines: Vec<String> =
            node.map(map)?.iter().map(|entry| without_version(entry).to_string()).collect();
        lines.sort();
        snapshot.insert(format!("bpftool map dump {map}"), lines.join("\n"));
    }
    snapshot.insert("pools".to_owned(), node.status()?["pools"].to_string());
    Ok(snapshot)
}

/// Fails with the lines that differ.
pub(crate) fn ensure_same(before: &Snapshot, after: &Snapshot) -> Result<()> {
    let mut differences = Vec::new();
    for (what, text) in before {
        let now = after.get(what).context("another snapshot")?;
        let (old, new): (Vec<&str>, Vec<&str>) = (text.lines().collect(), now.lines().collect());
        let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
        let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
        if old != new {
            differences.push(format!("{what}:"));
            differences.extend(gone.chain(come));
        }
    }
    ensure!(differences.is_empty(), "differs:\n{}", differences.join("\n"));
    Ok(())
}

fn network(namespace: &Namespace, whose: &str) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    let questions = [
        ("", "link show\naddress show"),
        ("-4", "route show table all\nrule show\nneighbour show nud all"),
        ("-6", "route show table all\nrule show\nneighbour show nud all"),
    ];
    for (family, lines) in questions {
        let mut ip = command::limited("ip");
        ip.args(Some(family).filter(|family| !family.is_empty()));
        ip.args(["-details", "-netns", namespace.name(), "-batch", "-"]);
        let output = command::feed(&mut ip, lines)?;
        let text = command::checked(&ip, &output)?;
        let mut lines: Vec<String> = text.lines().filter_map(without_learnt).collect();
        // Neighbours come in the order of a hash table, which the kernel grows when it likes. Links have several lines.
        if !family.is_empty() {
            lines.sort();
        }
        snapshot.insert(format!("ip {family} of the {whose}"), lines.join("\n"));
    }
    Ok(snapshot)
}

/// Names below a directory, with the content of files whose content is what they say.
fn list(directory: &Path, with_content: bool, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name() == LAST_SWEEP {
            continue;
        }
        if entry.file_type()?.is_dir() {
            into.push(format!("{}/", path.display()));
            list(&path, with_content, into)?;
        } else if with_content && entry.file_type()?.is_file() {
            let content = if is_volatile(&path) { Vec::new() } else { fs::read(&path)? };
            into.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&content)));
        } else {
            into.push(path.display().to_string());
        }
    }
    Ok(())
}

// What may differ, and why. Everything else is compared.

/// What the agent's last sweep has not found, which is true until the next one.
const LAST_SWEEP: &str = "missing.json";

const STATES: [&str; 7] = ["REACHABLE", "STALE", "DELAY", "PROBE", "INCOMPLETE", "FAILED", "NOARP"];

/// The kernel learns neighbours, asks them again and forgets them when it likes. What somebody has written
/// down stays, but for the state of what the kernel keeps fresh.
fn without_learnt(line: &str) -> Option<String> {
    let is_neighbour = STATES.iter().any(|state| line.split(' ').any(|word| word == *state));
    let is_written = line.contains("PERMANENT") || line.contains("extern_learn");
    let words = line.split(' ').filter(|word| !STATES.contains(word) && *word != "router");
    (!is_neighbour || is_written).then(|| words.collect::<Vec<_>>().join(" "))
}

/// Counts the changes of `pw_pods`, each of which it makes known to all processors.
fn without_version(entry: &Value) -> Value {
    let mut entry = entry["formatted"].clone();
    if let Some(value) = entry["value"].as_object_mut() {
        value.remove("maps_version");
    }
    entry
}

/// The agent's log goes on, its lock names its process, and `host-local` remembers which address it gave last.
fn is_volatile(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["agent.log", "lock"].contains(&&*name) || name.starts_with("last_reserved_ip")
}
