//! Reads what test binaries print, and adds up.

use std::fmt::Write;

/// Heading of the list in CONTRIBUTING.md of tests that may be skipped.
const SKIPS_HEADING: &str = "## Allowed skips";

/// The sum over all test binaries.
#[derive(Default)]
pub(super) struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<String>,
    skips: Vec<String>,
    problems: Vec<String>,
}

impl Summary {
    /// Reads a line; returns whether it was a result line.
    pub(super) fn read(&mut self, binary: &str, line: &str) -> bool {
        if let Some((passed, failed, skipped)) = result(line) {
            self.passed += passed;
            self.failed += failed;
            self.skipped += skipped;
            return true;
        }
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|t| t.split_once(" ... "))
        else {
            return false;
        };
        if outcome.starts_with("ignored") {
            self.skips.push(name.to_owned());
        } else if outcome.starts_with("FAILED") {
            self.failures.push(format!("{binary}: {name}"));
        }
        false
    }

    /// Records something that is wrong beside the tests.
    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Records every skip that is not allowed.
    pub(super) fn refuse_skips(&mut self, allowed: &[String]) {
        for name in std::mem::take(&mut self.skips) {
            if !allowed.contains(&name) {
                self.problem(format!("skipped, but not in the list of CONTRIBUTING.md: {name}"));
            }
        }
    }

    /// Returns the number of tests so far.
    pub(super) fn total(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }

    /// Whether a test failed so far.
    pub(super) fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// Whether all is well.
    pub(super) fn is_success(&self) -> bool {
        self.failed == 0 && self.problems.is_empty()
    }

    /// Returns what failed, and the last line.
    pub(super) fn report(&self) -> String {
        let mut text = String::from("\n");
        for failure in &self.failures {
            let _ = writeln!(text, "failed: {failure}");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "failed: {problem}");
        }
        let failed = self.failed + self.problems.len() as u64;
        let _ = writeln!(text, "{} passed, {failed} failed, {} skipped", self.passed, self.skipped);
        text
    }
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; ...`.
fn result(line: &str) -> Option<(u64, u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        let field = counts.split(';').find_map(|field| field.trim().strip_suffix(what))?;
        field.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?, count("ignored")?))
}

/// Returns the tests that may be skipped, from the text of CONTRIBUTING.md: lines such as
/// ``- `net::big_tcp`: kernels before 6.8 lack it`` under the heading.
pub(super) fn allowed_skips(contributing: &str) -> Vec<String> {
    let lines = contributing.lines().skip_while(|line| *line != SKIPS_HEADING).skip(1);
    lines
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("- `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test a::works ... ok
test a::breaks ... FAILED
test a::later ... ignored, no VM
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.0s";

    fn summary() -> Summary {
        let mut summary = Summary::default();
        let results = OUTPUT.lines().filter(|line| summary.read("net", line)).count();
        assert_eq!(results, 1);
        summary
    }

    #[test]
    fn the_last_line_sums_up() {
        let mut summary = summary();
        summary.read("prog", "test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured");
        let report = summary.report();
        assert_eq!(report.lines().last(), Some("10 passed, 1 failed, 1 skipped"));
        assert!(report.contains("failed: net: a::breaks"), "{report}");
        assert!(!summary.is_success());
    }

    #[test]
    fn a_skip_is_a_failure_unless_it_is_listed() {
        let text = "# House\n\n## Allowed skips\n\n- `a::later`: needs a VM\n\n## Next\n- `b`: x\n";
        assert_eq!(allowed_skips(text), ["a::later"]);
        let mut listed = summary();
        listed.refuse_skips(&allowed_skips(text));
        assert!(listed.problems.is_empty());
        let mut unlisted = summary();
        unlisted.refuse_skips(&[]);
        assert_eq!(unlisted.problems.len(), 1);
    }

    #[test]
    fn a_problem_counts_as_a_failure() {
        let mut summary = Summary::default();
        assert!(summary.is_success());
        summary.problem("tier Net has no tests".to_owned());
        assert!(!summary.is_success());
        assert_eq!(summary.report().lines().last(), Some("0 passed, 1 failed, 0 skipped"));
    }
}
