//! Each rule that is broken is noticed by the check that is for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::ground::{Ground, run};

/// Runs at the same time.
const AT_ONCE: usize = 8;

struct Rule {
    name: String,
    base: String,
    version: String,
    checks: Vec<String>,
}

fn rules() -> Result<Vec<Rule>> {
    let output = Command::new(env!("CARGO_BIN_EXE_cni-mutant")).arg("--list").output()?;
    let read = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some(Rule {
            name: words.next()?,
            base: words.next()?,
            version: words.next()?,
            checks: words.collect(),
        })
    };
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| read(line).context(line.to_owned())).collect()
}

/// Runs the checks of a rule, and returns which of them did not notice.
fn not_noticed(rule: &Rule) -> Result<Vec<String>> {
    let ground = Ground::new()?;
    let mut kit = ground.mutant(&rule.name, &rule.base)?;
    kit.args(["--cni-version", &rule.version]);
    kit.args(rule.checks.iter().flat_map(|check| ["--only", check]));
    let ran = run(&mut kit)?;
    ensure!(ran.code == Some(1), "{}: exit status {:?}: {}", rule.name, ran.code, ran.stderr);
    let noticed: BTreeSet<&str> =
        ran.checks().filter(|(_, result, _)| *result == "failed").map(|row| row.0).collect();
    let missed = rule.checks.iter().filter(|check| !noticed.contains(check.as_str()));
    Ok(missed
        .map(|check| {
            let seen = ran.checks().find(|row| row.0 == check);
            format!("{}: {check} did not notice: {seen:?}", rule.name)
        })
        .collect())
}

#[test]
fn each_broken_rule_is_noticed() {
    let rules = rules().unwrap();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut missed = Vec::new();
        while let Some(rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
            missed.extend(not_noticed(rule).unwrap_or_else(|error| vec![format!("{error:#}")]));
        }
        missed
    };
    let missed: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn there_is_a_broken_plugin_for_each_check() {
    let rules = rules().unwrap();
    let noticed: BTreeSet<&str> =
        rules.iter().flat_map(|rule| rule.checks.iter().map(String::as_str)).collect();
    let without: Vec<&str> = cni_conformance::checks::all()
        .map(|check| check.id)
        .filter(|id| !noticed.contains(id))
        .collect();
    assert!(without.is_empty(), "no rule of cni-mutant is for {without:?}");
    assert!(rules.len() >= 25);
}

/// All checks pass on the plugin that breaks nothing: what they notice is what was broken.
#[test]
fn without_a_broken_rule_nothing_is_noticed() {
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("known/cni-mutant.toml");
    let mut applied: BTreeMap<String, bool> = BTreeMap::new();
    for base in ["bridge", "host-local", "tuning"] {
        let ground = Ground::new().unwrap();
        let mut kit = ground.mutant("", base).unwrap();
        if base == "bridge" {
            kit.arg("--known").arg(&known);
        }
        let ran = run(&mut kit).unwrap();
        assert!(ran.surprises().is_empty(), "{base}: {}", ran.surprises().join("\n"));
        assert_eq!(ran.code, Some(0), "{base}: {}", ran.stderr);
        for (check, result, _) in ran.checks() {
            *applied.entry(check.to_owned()).or_default() |= result != "does not apply";
        }
    }
    let never: Vec<_> = applied.iter().filter(|(_, applies)| !**applies).collect();
    let ids: Vec<&str> = never.iter().map(|(check, _)| check.as_str()).collect();
    // The real plugins below are older than this key.
    assert_eq!(ids, ["result/mtu"], "they did not apply to any");
}
