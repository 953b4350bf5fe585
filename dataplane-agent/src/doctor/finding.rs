//! What the check-up finds, and how it is shown.

use std::fmt::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::advice::Advice;

/// How bad it is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Something to know; also what cannot be seen from here.
    Note,
    /// Pods work, but not all of it, or not for long.
    Warning,
    /// The agent cannot start, or pods cannot have a network.
    Failure,
}

/// One line of the check-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub state: Severity,
    /// What was found.
    pub found: String,
    /// What to do; none where nothing is to be done, or where the finding says it.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, found, None)
    }

    pub(super) fn note(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, found, None)
    }

    /// What could not be looked at.
    pub(super) fn unseen(check: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::note(check, format!("cannot be seen from here: {why}"))
    }

    pub(super) fn warning(check: impl Into<String>, advice: Advice) -> Self {
        Self::new(check, Severity::Warning, advice.found, Some(advice.remedy))
    }

    pub(super) fn failure(check: impl Into<String>, advice: Advice) -> Self {
        Self::new(check, Severity::Failure, advice.found, Some(advice.remedy))
    }

    pub(super) fn new(
        check: impl Into<String>,
        state: Severity,
        found: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self { check: check.into(), state, found: found.into(), remedy }
    }

    /// As the agent would say it among its problems.
    pub(super) fn as_problem(&self) -> String {
        match &self.remedy {
            Some(remedy) => Advice::new(&self.found, remedy).to_string(),
            None => self.found.clone(),
        }
    }
}

/// 1 with failures, else 0, or 2 with warnings where these count.
pub(super) fn exit_status(findings: &[Finding], strict: bool) -> u8 {
    match findings.iter().map(|finding| finding.state).max() {
        Some(Severity::Failure) => 1,
        Some(Severity::Warning) if strict => 2,
        Some(Severity::Ok | Severity::Note | Severity::Warning) | None => 0,
    }
}

/// For people: the worst last, where a terminal and the end of a log show it.
pub(super) fn table(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.state);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["STATE", "CHECK", "FOUND"]);
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    for finding in sorted {
        let mut found = finding.found.clone();
        if let Some(remedy) = &finding.remedy {
            found.push_str("\n-> ");
            found.push_str(remedy);
        }
        table.add_row([word(finding.state).to_owned(), finding.check.clone(), found]);
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (failures, warnings) = (count(Severity::Failure), count(Severity::Warning));
    let _ = writeln!(text, "\n{failures} failed, {warnings} warnings");
    text
}

fn word(state: Severity) -> &'static str {
    match state {
        Severity::Ok => "ok",
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Failure => "FAILURE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Finding> {
        vec![
            Finding::failure("mounts", Advice::new("it is\nnot there", "mount it")),
            Finding::ok("kernel", "fine"),
            Finding::warning("clock", Advice::new("wrong", "set it")),
            Finding::note("ports", "open them"),
        ]
    }

    #[test]
    fn the_exit_status_is_that_of_the_worst() {
        let all = all();
        assert_eq!(exit_status(&all, false), 1);
        assert_eq!(exit_status(&all, true), 1);
        assert_eq!(exit_status(&all[1..], false), 0);
        assert_eq!(exit_status(&all[1..], true), 2);
        assert_eq!(exit_status(&all[3..], true), 0);
        assert_eq!(exit_status(&[], true), 0);
    }

    #[test]
    fn the_worst_comes_last_with_its_remedy() {
        let table = table(&all());
        let words: Vec<&str> =
            table.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(words, ["STATE", "ok", "note", "warning", "->", "FAILURE", "not", "->", "1"]);
        assert!(table.ends_with("-> mount it\n\n1 failed, 1 warnings\n"), "{table}");
    }

    #[test]
    fn the_document_has_all_four_fields() {
        let json = serde_json::to_value(all()).unwrap();
        let wanted = serde_json::json!({
            "check": "clock", "state": "warning", "found": "wrong", "remedy": "set it",
        });
        assert_eq!(json[2], wanted);
        assert!(json[1]["remedy"].is_null());
    }
}
