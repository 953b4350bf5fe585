//! Failures that are known, each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::checks;

/// Known failures: the reason by `check` or `check@version`.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    known: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    checks: Vec<String>,
    reason: String,
}

impl Known {
    /// Reads files: `[[known]]` tables with `checks`, a list of ids, and a `reason`.
    ///
    /// # Errors
    /// When one cannot be read, or names a check that does not exist, or gives no reason.
    pub fn read(files: &[impl AsRef<Path>]) -> Result<Self> {
        let mut known = Self::default();
        for file in files.iter().map(AsRef::as_ref) {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            known.add(&text).with_context(|| file.display().to_string())?;
        }
        Ok(known)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let document: Document = toml::from_str(text)?;
        let ids: BTreeSet<&str> = checks::all().map(|check| check.id).collect();
        for entry in document.known {
            ensure!(!entry.reason.trim().is_empty(), "{:?} without a reason", entry.checks);
            for name in entry.checks {
                let id = name.split('@').next().unwrap_or_default();
                ensure!(ids.contains(id), "there is no check {id:?}: see --list");
                if self.0.insert(name.clone(), entry.reason.clone()).is_some() {
                    bail!("{name} stands twice");
                }
            }
        }
        Ok(())
    }

    /// Why a check is known to fail with a version.
    pub fn reason(&self, id: &str, version: Option<&str>) -> Option<&str> {
        let exact = version.and_then(|version| self.0.get(&format!("{id}@{version}")));
        exact.or_else(|| self.0.get(id)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Result<Known> {
        let mut known = Known::default();
        known.add(text)?;
        Ok(known)
    }

    #[test]
    fn an_entry_is_for_all_versions_or_for_one() {
        let text = "[[known]]\nchecks = [\"del/twice\", \"result/ips@0.3.0\"]\nreason = \"r\"\n";
        let known = known(text).unwrap();
        assert_eq!(known.reason("del/twice", Some("1.0.0")), Some("r"));
        assert_eq!(known.reason("result/ips", Some("0.3.0")), Some("r"));
        assert_eq!(known.reason("result/ips", Some("0.3.1")), None);
    }

    #[test]
    fn entries_that_help_nobody_are_refused() {
        for text in [
            "[[known]]\nchecks = [\"del/never-was\"]\nreason = \"r\"\n",
            "[[known]]\nchecks = [\"del/twice\"]\nreason = \" \"\n",
            "[[known]]\nchecks = [\"del/twice\"]\n",
            "[[known]]\nchecks = [\"del/twice\", \"del/twice\"]\nreason = \"r\"\n",
        ] {
            assert!(known(text).is_err(), "{text}");
        }
    }
}
