//! Each command of docs/kubernetes.md is run by a test, or marked as needing something that is not here.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::render::file;

use super::accepted;
use super::objects::chart;

/// The mark in the paragraph above a block of commands.
const MARK: &str = "Not run by the tests";
const AGENTS: &str = "tests/kubernetes/src/life/agents.rs";
const ASKED: &str = "tests/kubernetes/src/checks/asked.rs";
/// A command by its beginning, the file that runs it, and what that has of it.
type Run = (&'static str, &'static str, &'static str);
/// Commands of blocks.
const RUN: [Run; 12] = [
    ("cargo xtask image", "tests/tests/deploy/image.rs", r#".arg("image")"#),
    (
        "ctr --namespace k8s.io images import",
        "tests/kubernetes/src/containerd.rs",
        "--namespace k8s.io images import",
    ),
    (
        "kubectl apply -f deploy/podwire.yaml",
        "tests/kubernetes/src/network/podwire.rs",
        "deploy/podwire.yaml",
    ),
    (
        "kubectl --namespace kube-system rollout status daemonset/podwire",
        "tests/kubernetes/src/network/podwire.rs",
        "--namespace kube-system rollout status daemonset/podwire",
    ),
    (
        "kubectl --namespace kube-system logs --selector app.kubernetes.io/name=podwire",
        ASKED,
        "--namespace kube-system logs --selector app.kubernetes.io/name=podwire",
    ),
    (
        "kubectl --namespace kube-system exec podwire-abcde -- /podwire-agent status",
        ASKED,
        r#""/podwire-agent", "status""#,
    ),
    (
        "kubectl --namespace kube-system exec podwire-abcde -- /podwire-agent doctor",
        ASKED,
        r#""/podwire-agent", "doctor""#,
    ),
    ("podwire-agent doctor", "tests/tests/net/doctor.rs", r#""doctor""#),
    ("kubectl delete -f deploy/podwire.yaml", AGENTS, "delete --filename"),
    (
        "mkdir -p /run/podwire /opt/cni/bin /etc/cni/net.d",
        AGENTS,
        "mkdir -p /run/podwire /opt/cni/bin /etc/cni/net.d",
    ),
    (
        "ctr --namespace k8s.io run --rm --privileged --net-host",
        AGENTS,
        "--namespace k8s.io run --rm --privileged --net-host",
    ),
    (
        "podwire-agent run --kubernetes --node-name",
        "tests/kubernetes/src/life/by_hand.rs",
        r#""--kubeconfig""#,
    ),
];
/// Commands of tables, and what the file that runs them has of each.
const OF_TABLES: [(&str, &str); 4] = [
    ("kubectl --namespace kube-system logs podwire-abcde --container doctor", "--container doctor"),
    ("kubectl --namespace kube-system logs podwire-abcde --previous", "--previous"),
    ("kubectl describe node", "describe node"),
    ("kubectl describe pod", "describe pods"),
];
/// Programs whose commands stand in the text, too.
const PROGRAMS: [&str; 6] = ["kubectl ", "ctr ", "crictl ", "docker ", "helm ", "kubeadm "];
/// Commands of the text.
const OF_TEXT: [Run; 4] = [
    ("kubectl apply -k", "tests/kubernetes/src/kubectl.rs", "--kustomize"),
    (
        "kubectl --namespace kube-system get pods --selector",
        "tests/kubernetes/src/agent.rs",
        "pods --namespace {NAMESPACE} --selector {SELECTOR}",
    ),
    (
        "kubectl delete validatingadmissionpolicybinding podwire",
        "tests/kubernetes/src/checks/rights.rs",
        "delete validatingadmissionpolicybinding podwire",
    ),
    ("kubectl describe node", SYMPTOMS, "describe node"),
];
const SYMPTOMS: &str = "tests/kubernetes/src/life/symptoms.rs";
/// What a command says.
const SAID: [&str; 1] = ["3 nodes from the Kubernetes API"];

/// A block of the document, with the paragraph above it.
struct Block<'a> {
    above: String,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut above, mut lines) = (String::new(), Vec::new());
    for line in text.lines().chain([""]) {
        if let Some(code) = line.strip_prefix("    ") {
            lines.push(code);
        } else if !lines.is_empty() {
            let block =
                Block { above: std::mem::take(&mut above), lines: std::mem::take(&mut lines) };
            blocks.push(block);
        } else if line.is_empty() && !above.ends_with("\n\n") {
            above.push_str("\n\n");
        } else if !line.is_empty() {
            if above.ends_with("\n\n") {
                above.clear();
            }
            above.push_str(line);
            above.push(' ');
        }
    }
    blocks
}

/// Whether it is part of a file, or goes on with the line before.
fn is_no_command(line: &str, before: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    let is_file = first.ends_with(':') || first.starts_with(['-', '#']);
    is_file || line.starts_with(' ') || before.ends_with('\\')
}

/// Asserts that the document has each of these commands, and that its file runs it.
fn are_all_run(all: &[Run], found: &BTreeSet<usize>) -> Result<()> {
    // A long text goes on in the next line.
    let joined = |text: &str| {
        let words = text.split_whitespace().filter(|word| *word != "\\");
        words.collect::<Vec<_>>().join(" ")
    };
    for (number, (command, path, what)) in all.iter().enumerate() {
        ensure!(found.contains(&number), "docs/kubernetes.md has no `{command}`");
        let source = fs::read_to_string(file(path)).with_context(|| (*path).to_owned())?;
        ensure!(joined(&source).contains(&joined(what)), "{path} no longer runs `{command}`");
    }
    Ok(())
}

#[test]
fn each_command_is_run_or_marked() -> Result<()> {
    let text = fs::read_to_string(file("docs/kubernetes.md"))?;
    let (mut found, mut marked) = (BTreeSet::new(), 0);
    for block in blocks(&text) {
        if block.above.contains(MARK) {
            marked += 1;
            continue;
        }
        let before = [""].into_iter().chain(block.lines.iter().copied());
        for (line, before) in block.lines.iter().zip(before) {
            if is_no_command(line, before) || SAID.iter().any(|said| line.starts_with(said)) {
                continue;
            }
            let run = RUN.iter().position(|(command, ..)| line.starts_with(command));
            found.insert(
                run.with_context(|| format!("no test runs it, and it has no mark: {line}"))?,
            );
        }
    }
    are_all_run(&RUN, &found)?;
    ensure!(marked > 0, "nothing has the mark `{MARK}`");
    Ok(())
}

#[test]
fn each_command_of_a_table_is_run() -> Result<()> {
    let text = fs::read_to_string(file("docs/kubernetes.md"))?;
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let found: BTreeSet<&str> = quoted.filter(|it| it.starts_with("kubectl ")).collect();
    let known: BTreeSet<&str> = OF_TABLES.iter().map(|(command, _)| *command).collect();
    ensure!(found == known, "the tables have {found:?}, the tests run {known:?}");
    let source = fs::read_to_string(file(SYMPTOMS))?;
    for (command, what) in OF_TABLES {
        ensure!(source.contains(what), "{SYMPTOMS} no longer runs `{command}`");
    }
    Ok(())
}

#[test]
fn each_command_of_the_text_is_run_or_its_section_marked() -> Result<()> {
    let text = fs::read_to_string(file("docs/kubernetes.md"))?;
    let mark = MARK.to_lowercase();
    let mut found = BTreeSet::new();
    for section in text.split("\n#") {
        if section.to_lowercase().contains(&mark) {
            continue;
        }
        let is_text = |line: &&str| !line.starts_with("    ") && !line.starts_with("| ");
        let quoted =
            section.lines().filter(is_text).flat_map(|line| line.split('`').skip(1).step_by(2));
        for command in quoted.filter(|it| PROGRAMS.iter().any(|program| it.starts_with(program))) {
            let run = OF_TEXT.iter().position(|(known, ..)| command.starts_with(known));
            found.insert(run.with_context(|| {
                format!("no test runs it, and its section has no mark: {command}")
            })?);
        }
    }
    are_all_run(&OF_TEXT, &found)
}

/// The directories of k3s, as the document has them.
#[test]
fn the_agent_takes_the_values_for_k3s() -> Result<()> {
    let text = fs::read_to_string(file("docs/kubernetes.md"))?;
    let value = |name: &str| {
        let (_, values) = text.split_once("# k3s.yaml\n").context("no k3s.yaml")?;
        let mut lines = values.lines().map(str::trim);
        let prefix = format!("{name}: ");
        lines.find_map(|line| line.strip_prefix(&prefix)).with_context(|| prefix.clone())
    };
    let values = json!({"cni": {"binDir": value("binDir")?, "confDir": value("confDir")?}});
    let said = accepted::start(&chart(&values)?)?;
    ensure!(accepted::is_accepted(&said), "{values}: {said}");
    Ok(())
}
