//! Runs the checks.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::checks::{self, Check};
use crate::interrupt;
use crate::kernel;
use crate::known::Known;
use crate::setup::{Plugin, Setup, VERSIONS};
use crate::stop::{Outcome, Stop};

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The plugin keeps the rule.
    Passed,
    /// It breaks the rule: what it did.
    Failed(String),
    /// It breaks the rule, as is known: what it did, and the reason.
    KnownFailure(String, String),
    /// It keeps a rule that it is known to break: the reason that was given.
    UnexpectedPass(String),
    /// The rule is not for this plugin or configuration: why.
    NotApplicable(String),
    /// The kit could not run it: why.
    Broken(String),
}

/// A check that was run with a version.
#[derive(Debug)]
pub struct Row {
    /// The check.
    pub check: &'static Check,
    /// The version, where it matters.
    pub version: Option<&'static str>,
    /// What became of it.
    pub verdict: Verdict,
}

impl Verdict {
    /// Whether nobody has to look at it.
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::Passed | Self::KnownFailure(..) | Self::NotApplicable(_))
    }
}

impl Row {
    /// `check` or `check@version`.
    pub fn name(&self) -> String {
        match self.version {
            Some(version) => format!("{}@{version}", self.check.id),
            None => self.check.id.to_owned(),
        }
    }
}

/// Finds out which versions all plugins and the kit have in common. A plugin that does not say is taken at
/// the word of the configuration: that is for a check to find.
///
/// # Errors
/// When they have none.
pub fn find_versions(setup: &mut Setup, configured: Option<&str>) -> Result<()> {
    let mut versions = VERSIONS.to_vec();
    for plugin in setup.before.iter().chain([&setup.plugin]) {
        let named = supported(setup, plugin)?;
        let is_common = |version: &&str| match named.is_empty() {
            true => configured == Some(*version),
            false => named.iter().any(|name| name == version),
        };
        versions.retain(is_common);
        if versions.is_empty() {
            let name = plugin.path.display();
            bail!("{name} supports {named:?}, the kit and earlier plugins none of them");
        }
    }
    setup.version = versions[versions.len() - 1];
    setup.versions = versions;
    Ok(())
}

fn supported(setup: &Setup, plugin: &Plugin) -> Result<Vec<String>> {
    let bench = Bench::new(setup, setup.version);
    let input = json!({ "cniVersion": setup.version }).to_string();
    let answer = match bench.run(bench.call("VERSION").to(plugin).stdin(&input)) {
        Ok(reply) => reply.object().unwrap_or_default(),
        Err(Stop::Broken(error)) => return Err(error),
        Err(Stop::Failed(_) | Stop::NotApplicable(_)) => Value::Null,
    };
    let names = answer["supportedVersions"].as_array().into_iter().flatten();
    Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Attaches and detaches one container: if that does not work here, no check would say anything. What is
/// on the host afterwards is what attachments share.
///
/// # Errors
/// When ADD fails.
pub fn warm_up(setup: &mut Setup) -> Result<()> {
    let attempt = || -> Outcome<()> {
        let bench = Bench::new(setup, setup.version);
        let container = bench.container()?;
        bench.run(bench.on("ADD", &container))?.succeeded()
    };
    match attempt() {
        Ok(()) => {}
        Err(Stop::Broken(error)) => return Err(error),
        Err(Stop::Failed(text) | Stop::NotApplicable(text)) => bail!("cannot run here: {text}"),
    }
    setup.shared = kernel::names(&setup.host)?;
    Ok(())
}

/// Runs all checks, or those whose ids are wanted.
pub fn run(setup: &Setup, known: &Known, only: &BTreeSet<String>) -> Vec<Row> {
    let mut rows = Vec::new();
    let wanted = |check: &&Check| only.is_empty() || only.contains(check.id);
    for check in checks::all().filter(wanted) {
        let versions = match check.runs(setup) {
            Ok(versions) => versions,
            Err(stop) => {
                rows.push(Row { check, version: None, verdict: verdict(Err(stop), None) });
                continue;
            }
        };
        for version in versions {
            if interrupt::requested() {
                return rows;
            }
            let bench = Bench::new(setup, version.unwrap_or(setup.version));
            let outcome = check.run(&bench);
            let verdict = verdict(outcome, known.reason(check.id, version));
            rows.push(Row { check, version, verdict });
        }
    }
    rows
}

fn verdict(outcome: Outcome, known: Option<&str>) -> Verdict {
    match (outcome, known) {
        (Ok(()), None) => Verdict::Passed,
        (Ok(()), Some(reason)) => Verdict::UnexpectedPass(reason.to_owned()),
        (Err(Stop::Failed(text)), None) => Verdict::Failed(text),
        (Err(Stop::Failed(text)), Some(reason)) => Verdict::KnownFailure(text, reason.to_owned()),
        (Err(Stop::NotApplicable(text)), _) => Verdict::NotApplicable(text),
        (Err(Stop::Broken(error)), _) => Verdict::Broken(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_expected_is_told() {
        let failed = || Err(Stop::Failed("f".into()));
        assert!(verdict(Ok(()), None).is_expected());
        assert!(verdict(failed(), Some("r")).is_expected());
        assert!(!verdict(failed(), None).is_expected());
        assert!(!verdict(Ok(()), Some("r")).is_expected());
        let broken = Err(Stop::Broken(anyhow::anyhow!("b")));
        assert!(!verdict(broken, Some("r")).is_expected());
    }
}
