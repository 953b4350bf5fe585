//! What people and CI systems read.

use std::time::Duration;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use crate::checks::{self, Level};
use crate::run::{Row, Verdict};
use crate::setup::Setup;

/// Counts of verdicts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kept rules.
    pub passed: usize,
    /// Broken rules that nobody knew of.
    pub failed: usize,
    /// Broken rules that were known.
    pub known: usize,
    /// Kept rules that were known as broken.
    pub unexpected: usize,
    /// Rules that do not apply.
    pub not_applicable: usize,
    /// Checks that the kit could not run.
    pub broken: usize,
}

impl Counts {
    /// Counts.
    pub fn of(rows: &[Row]) -> Self {
        let mut counts = Self::default();
        for row in rows {
            *match row.verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Failed(_) => &mut counts.failed,
                Verdict::KnownFailure(..) => &mut counts.known,
                Verdict::UnexpectedPass(_) => &mut counts.unexpected,
                Verdict::NotApplicable(_) => &mut counts.not_applicable,
                Verdict::Broken(_) => &mut counts.broken,
            } += 1;
        }
        counts
    }

    /// In one line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} passed, {} failed, {} known to fail, {} do not apply",
            self.passed, self.failed, self.known, self.not_applicable
        );
        for (count, what) in
            [(self.unexpected, "pass unexpectedly"), (self.broken, "could not be run")]
        {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        line
    }
}

/// In one word, and with more words.
fn words(verdict: &Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Passed => ("ok", String::new()),
        Verdict::Failed(text) => ("FAILED", text.clone()),
        Verdict::KnownFailure(_, reason) => ("known", reason.clone()),
        Verdict::UnexpectedPass(reason) => {
            ("PASSES", format!("it is known to fail: {reason} Remove it from the list."))
        }
        Verdict::NotApplicable(text) => ("-", text.clone()),
        Verdict::Broken(text) => ("BROKEN", format!("the kit could not run it: {text}")),
    }
}

/// The table for people, and the sum.
pub fn table(setup: &Setup, rows: &[Row], width: u16) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(["check", "level", "SPEC.md", "result"]);
    for row in rows {
        let (word, text) = words(&row.verdict);
        let detail = if text.is_empty() { String::new() } else { format!(": {text}") };
        table.add_row([
            row.name(),
            row.check.level.name().to_owned(),
            row.check.section.to_owned(),
            format!("{word}{detail}"),
        ]);
    }
    format!("{}\n{table}\n{}\n", heading(setup), Counts::of(rows).line())
}

fn heading(setup: &Setup) -> String {
    format!(
        "{} ({:?} plugin), CNI {}; common versions: {}",
        setup.plugin.path.display(),
        setup.kind,
        setup.version,
        setup.versions.join(", ")
    )
}

/// What a plugin with a known failure did.
fn observed(verdict: &Verdict) -> Option<&str> {
    if let Verdict::KnownFailure(seen, _) = verdict { Some(seen) } else { None }
}

/// All as one document.
pub fn json(setup: &Setup, rows: &[Row]) -> Value {
    let counts = Counts::of(rows);
    let row = |row: &Row| {
        let (word, text) = words(&row.verdict);
        json!({
            "check": row.check.id,
            "version": row.version,
            "level": row.check.level.name(),
            "section": row.check.section,
            "rule": row.check.title,
            "result": match word { "-" => "does not apply", other => other }.to_lowercase(),
            "text": text,
            "observed": observed(&row.verdict),
        })
    };
    json!({
        "plugin": setup.plugin.path,
        "version": setup.version,
        "versions": setup.versions,
        "counts": {
            "passed": counts.passed,
            "failed": counts.failed,
            "known": counts.known,
            "unexpected": counts.unexpected,
            "notApplicable": counts.not_applicable,
            "broken": counts.broken,
        },
        "checks": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// JUnit XML: one suite per group.
///
/// # Errors
/// When it cannot be written.
pub fn junit(setup: &Setup, rows: &[Row]) -> Result<String> {
    let name = setup.plugin.path.file_name().unwrap_or_default().to_string_lossy();
    let mut report = Report::new(format!("cni-conformance {name}"));
    let mut groups: Vec<&str> =
        rows.iter().filter_map(|row| row.check.id.split('/').next()).collect();
    groups.dedup();
    for group in groups {
        let mut suite = TestSuite::new(group);
        let of_group = |row: &&Row| row.check.id.split('/').next() == Some(group);
        suite.add_test_cases(rows.iter().filter(of_group).map(case));
        report.add_test_suite(suite);
    }
    Ok(report.to_string()?)
}

fn case(row: &Row) -> TestCase {
    let (_, text) = words(&row.verdict);
    let bad = |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(text.clone());
        status
    };
    let status = match row.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed(_) | Verdict::UnexpectedPass(_) => bad(NonSuccessKind::Failure),
        Verdict::Broken(_) => bad(NonSuccessKind::Error),
        Verdict::KnownFailure(..) | Verdict::NotApplicable(_) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(text.clone());
            status
        }
    };
    let mut case = TestCase::new(row.name(), status);
    case.set_classname(format!("SPEC.md {}", row.check.section)).set_time(Duration::ZERO);
    case
}

/// All checks, without running them.
pub fn list(width: u16) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(["check", "level", "SPEC.md", "rule"]);
    let mut levels = [0_usize; 3];
    for check in checks::all() {
        levels[match check.level {
            Level::Must => 0,
            Level::Should => 1,
            Level::Reference => 2,
        }] += 1;
        table.add_row([check.id, check.level.name(), check.section, check.title]);
    }
    let [must, should, reference] = levels;
    format!("{table}\n{must} MUST, {should} SHOULD, {reference} of the reference library\n")
}
