//! Kubernetes' own suite, `e2e.test`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::programs;

/// What is run and what is not.
const FILE: &str = include_str!("../suite.toml");
/// No set takes longer, in minutes.
const MINUTES_MAX: u32 = 30;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    set: BTreeMap<String, Set>,
    #[serde(default)]
    skip: Vec<Skip>,
}

/// Specifications that are run together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    what: String,
    focus: String,
}

/// Specifications that are not run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    name: String,
    reason: String,
}

/// Names of all sets, with what each is.
pub(crate) fn list() -> Result<String> {
    let suite: Suite = toml::from_str(FILE)?;
    let lines: Vec<String> =
        suite.set.iter().map(|(name, set)| format!("{name}: {}", set.what)).collect();
    Ok(lines.join("\n"))
}

/// Runs a set, and returns ginkgo's summary.
pub(crate) fn run(cluster: &Cluster, name: &str, processes: u32) -> Result<String> {
    let mut suite: Suite = toml::from_str(FILE).context("suite.toml")?;
    let Some(set) = suite.set.remove(name) else {
        bail!("no set `{name}`; there are:\n{}", list()?);
    };
    for skip in &suite.skip {
        eprintln!("    not run: {} ({})", skip.name, skip.reason);
    }
    let logs = cluster.save_logs()?;
    let log = logs.join(format!("{name}.log"));
    let mut log_file = File::create(&log).with_context(|| log.display().to_string())?;
    let mut ginkgo = command(cluster, &set, &suite.skip, processes)?;
    let mut child = ginkgo.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let output = child.stdout.take().context("output of ginkgo")?;
    let mut summary = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = without_colours(&String::from_utf8_lossy(&line?));
        writeln!(log_file, "{line}")?;
        let is_summary = ["Ran ", "SUCCESS!", "FAIL!"].iter().any(|word| line.starts_with(word));
        if is_summary {
            summary.push(line);
        } else if line.trim_start().starts_with("[FAIL]") {
            eprintln!("    {}", line.trim());
        }
    }
    let status = child.wait()?;
    let summary = summary.join(" ");
    ensure!(status.success(), "{summary} ({status}); see {}", log.display());
    let ran = summary.strip_prefix("Ran ").and_then(|rest| rest.split(' ').next());
    ensure!(ran.is_some_and(|count| count != "0"), "nothing was run: {summary}; {}", log.display());
    Ok(summary)
}

fn command(cluster: &Cluster, set: &Set, skips: &[Skip], processes: u32) -> Result<Command> {
    // Behind its own limit, which ends it in an orderly way.
    let seconds = (MINUTES_MAX + 2) * 60;
    let mut ginkgo = cluster.control.namespace.service("timeout", true);
    ginkgo.args(["--kill-after=10", &seconds.to_string()]).arg(programs::built("ginkgo")?);
    ginkgo.args([format!("--procs={processes}"), format!("--timeout={MINUTES_MAX}m")]);
    ginkgo.args(["--no-color", "-v"]);
    ginkgo.arg(format!("--focus={}", set.focus));
    ginkgo.args(skips.iter().map(|skip| format!("--skip={}", skip.name)));
    ginkgo.arg(programs::built("e2e.test")?).arg("--");
    ginkgo.arg(format!("--kubeconfig={}", cluster.control.kubectl.kubeconfig.display()));
    ginkgo.arg(format!("--kubectl-path={}", programs::built("kubectl")?.display()));
    ginkgo.arg(format!("--num-nodes={}", cluster.nodes.len()));
    ginkgo.args(["--provider=skeleton", "--disable-log-dump", "--prepull-images=false"]);
    ginkgo.args(["--allowed-not-ready-nodes=0", "--minStartupPods=0"]);
    ginkgo.current_dir(&cluster.control.directory).stdin(Stdio::null());
    Ok(ginkgo)
}

/// The text without what a terminal would not show.
fn without_colours(line: &str) -> String {
    let mut text = String::new();
    let mut parts = line.split('\u{1b}');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_skip_has_a_reason() {
        let suite: Suite = toml::from_str(FILE).unwrap();
        assert!(suite.set.contains_key("conformance"));
        assert!(suite.skip.iter().all(|skip| skip.reason.len() > 10 && skip.name.len() > 10));
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(
            without_colours("\u{1b}[38;5;10m\u{1b}[1mSUCCESS!\u{1b}[0m -- 4"),
            "SUCCESS! -- 4"
        );
    }
}
