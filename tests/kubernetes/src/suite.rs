//! Kubernetes' own suite, `e2e.test`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::kubectl::Kubectl;
use crate::programs;

/// What is run and what is not.
const FILE: &str = include_str!("../suite.toml");
/// The set of what all others leave out.
pub(crate) const SKIPPED: &str = "skipped";
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
    /// How many there are, where that is known: fewer would go unnoticed.
    count: Option<u32>,
}

/// Specifications that are not run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    name: String,
    reason: String,
}

impl Skip {
    /// An expression for what a set would run of it.
    fn focus(&self, suite: &Suite) -> String {
        let name = &self.name;
        let both = |set: &Set| {
            let focus = &set.focus;
            format!("(?:{focus}).*(?:{name})|(?:{name}).*(?:{focus})")
        };
        suite.set.values().map(both).collect::<Vec<_>>().join("|")
    }
}

/// What became of specifications.
struct Ran {
    summary: String,
    count: u32,
    is_good: bool,
    log: PathBuf,
}

/// Names of all sets, with what each is.
pub(crate) fn list() -> Result<String> {
    let suite: Suite = toml::from_str(FILE)?;
    let mut lines: Vec<String> =
        suite.set.iter().map(|(name, set)| format!("{name}: {}", set.what)).collect();
    lines.push(format!("{SKIPPED}: what the others leave out; good if nothing of it passes"));
    Ok(lines.join("\n"))
}

/// How specifications are run.
#[derive(Clone, Debug)]
pub(crate) struct Runner<'a> {
    pub(crate) kubectl: &'a Kubectl,
    /// How many nodes there are.
    pub(crate) nodes: usize,
    /// How many specifications at a time.
    pub(crate) processes: u32,
    /// Directory of what they say.
    pub(crate) logs: PathBuf,
}

impl Runner<'_> {
    /// Runs a set, and returns ginkgo's summary.
    pub(crate) fn run(&self, name: &str) -> Result<String> {
        let mut suite: Suite = toml::from_str(FILE).context("suite.toml")?;
        if name == SKIPPED {
            return self.run_skipped(&suite);
        }
        let Some(set) = suite.set.remove(name) else {
            bail!("no set `{name}`; there are:\n{}", list()?);
        };
        for skip in &suite.skip {
            eprintln!("    not run: {} ({})", skip.name, skip.reason);
        }
        let ran = self.run_one(name, &set.focus, &suite.skip)?;
        ensure!(ran.is_good, "{}; see {}", ran.summary, ran.log.display());
        let all = set.count.is_none_or(|count| ran.count == count);
        ensure!(
            all,
            "{}, and the set has {:?}: tests/kubernetes/suite.toml",
            ran.summary,
            set.count
        );
        Ok(ran.summary)
    }

    /// Runs what the sets leave out: nothing of it may pass, or it would be left out for no reason.
    fn run_skipped(&self, suite: &Suite) -> Result<String> {
        let mut summaries = Vec::new();
        for skip in &suite.skip {
            let ran = self.run_one(SKIPPED, &skip.focus(suite), &[])?;
            let passed = !ran.summary.contains(" 0 Passed ");
            ensure!(
                !passed,
                "some of {} pass: {}; see {}",
                skip.name,
                ran.summary,
                ran.log.display()
            );
            summaries.push(format!("{}: {}", skip.name, ran.summary));
        }
        Ok(summaries.join("; "))
    }

    /// Runs what an expression matches, less what is skipped.
    fn run_one(&self, name: &str, focus: &str, skips: &[Skip]) -> Result<Ran> {
        let log = self.logs.join(format!("{name}.log"));
        let mut log_file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut ginkgo = self.command(focus, skips)?;
        let mut child = ginkgo.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let output = child.stdout.take().context("output of ginkgo")?;
        let mut summary = Vec::new();
        for line in BufReader::new(output).split(b'\n') {
            let line = without_colours(&String::from_utf8_lossy(&line?));
            writeln!(log_file, "{line}")?;
            let is_summary =
                ["Ran ", "SUCCESS!", "FAIL!"].iter().any(|word| line.starts_with(word));
            if is_summary {
                summary.push(line);
            } else if line.trim_start().starts_with("[FAIL]") {
                eprintln!("    {}", line.trim());
            }
        }
        let status = child.wait()?;
        let summary = summary.join(" ");
        let ran = summary.strip_prefix("Ran ").and_then(|rest| rest.split(' ').next());
        let count = ran.and_then(|count| count.parse().ok()).unwrap_or(0);
        ensure!(count > 0, "nothing was run: {summary} ({status}); {}", log.display());
        Ok(Ran { summary, count, is_good: status.success(), log })
    }

    fn command(&self, focus: &str, skips: &[Skip]) -> Result<Command> {
        // Behind its own limit, which ends it in an orderly way.
        let seconds = (MINUTES_MAX + 2) * 60;
        let mut ginkgo = self.kubectl.service_beside("timeout");
        ginkgo.args(["--kill-after=10", &seconds.to_string()]).arg(programs::built("ginkgo")?);
        ginkgo.arg(format!("--procs={}", self.processes));
        ginkgo.args([&format!("--timeout={MINUTES_MAX}m"), "--no-color", "-v"]);
        ginkgo.arg(format!("--focus={focus}"));
        ginkgo.args(skips.iter().map(|skip| format!("--skip={}", skip.name)));
        ginkgo.arg(programs::built("e2e.test")?).arg("--");
        ginkgo.arg(format!("--kubeconfig={}", self.kubectl.kubeconfig.display()));
        ginkgo.arg(format!("--kubectl-path={}", programs::built("kubectl")?.display()));
        ginkgo.arg(format!("--num-nodes={}", self.nodes));
        ginkgo.args(["--provider=skeleton", "--disable-log-dump", "--prepull-images=false"]);
        ginkgo.args(["--allowed-not-ready-nodes=0", "--minStartupPods=0"]);
        ginkgo.current_dir(&self.logs).stdin(Stdio::null());
        Ok(ginkgo)
    }
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
