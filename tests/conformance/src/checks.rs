//! All checks: one per rule of the specification that can be observed from outside.

mod add;
mod chained;
mod check;
mod concurrency;
mod config;
mod del;
mod delegation;
mod environment;
mod error;
mod gc;
mod ipam;
mod pool;
mod result;
mod status;
mod version;

use crate::bench::Bench;
use crate::setup::{Kind, Setup, VERSIONS, at_least};
use crate::stop::{Outcome, not_applicable};

/// How binding a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The specification says must, or describes it as a fact.
    Must,
    /// The specification says should.
    Should,
    /// The specification is silent; runtimes rely on what the reference library does.
    Reference,
}

impl Level {
    /// In reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Reference => "reference",
        }
    }
}

/// A check of one rule.
#[derive(Debug)]
pub struct Check {
    /// Its name, `group/rule`.
    pub id: &'static str,
    /// How binding the rule is.
    pub level: Level,
    /// Where SPEC.md has it: of 1.1.0 unless another version is named.
    pub section: &'static str,
    /// The rule.
    pub title: &'static str,
    kinds: &'static [Kind],
    versions: (&'static str, &'static str),
    each_version: bool,
    needs: Needs,
    run: fn(&Bench<'_>) -> Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Delegate,
    Pool,
}

const ALL_KINDS: &[Kind] = &[Kind::Interface, Kind::Chained, Kind::Ipam];
const INTERFACE: &[Kind] = &[Kind::Interface];
const NOT_CHAINED: &[Kind] = &[Kind::Interface, Kind::Ipam];

impl Check {
    const fn new(
        level: Level,
        id: &'static str,
        section: &'static str,
        title: &'static str,
        run: fn(&Bench<'_>) -> Outcome,
    ) -> Self {
        let versions = (VERSIONS[0], VERSIONS[VERSIONS.len() - 1]);
        let (kinds, each_version, needs) = (ALL_KINDS, false, Needs::Nothing);
        Self { id, level, section, title, kinds, versions, each_version, needs, run }
    }

    const fn kinds(mut self, kinds: &'static [Kind]) -> Self {
        self.kinds = kinds;
        self
    }

    const fn since(mut self, version: &'static str) -> Self {
        self.versions.0 = version;
        self
    }

    const fn until(mut self, version: &'static str) -> Self {
        self.versions.1 = version;
        self
    }

    const fn each_version(mut self) -> Self {
        self.each_version = true;
        self
    }

    const fn delegate(mut self) -> Self {
        self.needs = Needs::Delegate;
        self
    }

    const fn pool(mut self) -> Self {
        self.needs = Needs::Pool;
        self
    }

    /// The versions with which it has to be run, or why it does not apply.
    ///
    /// # Errors
    /// When it does not apply.
    pub fn runs(&self, setup: &Setup) -> Outcome<Vec<Option<&'static str>>> {
        if !self.kinds.contains(&setup.kind) {
            return not_applicable(format!("not for a plugin of the kind {:?}", setup.kind));
        }
        if self.needs == Needs::Delegate && setup.delegate().is_none() {
            return not_applicable("the configuration delegates nothing (no \"ipam\")");
        }
        if self.needs == Needs::Pool && setup.pool.is_none() {
            return not_applicable("needs --pool, the number of addresses");
        }
        let (first, last) = self.versions;
        let in_range = |version: &&str| at_least(version, first) && at_least(last, version);
        let versions: Vec<_> = setup.versions.iter().copied().filter(in_range).collect();
        let Some(newest) = versions.last() else {
            return not_applicable(match first == last {
                true => format!("the plugin does not support {first}"),
                false => format!("the plugin supports none of {first} to {last}"),
            });
        };
        if self.each_version {
            return Ok(versions.into_iter().map(Some).collect());
        }
        // Rules of an older version that the newest does not have name theirs in the report.
        let named = (*newest != setup.version).then_some(*newest);
        Ok(vec![named])
    }

    /// Runs it on a bench of its version.
    ///
    /// # Errors
    /// When the rule is broken.
    pub fn run(&self, bench: &Bench<'_>) -> Outcome {
        (self.run)(bench)
    }
}

const fn must(
    id: &'static str,
    section: &'static str,
    title: &'static str,
    run: fn(&Bench<'_>) -> Outcome,
) -> Check {
    Check::new(Level::Must, id, section, title, run)
}

const fn should(
    id: &'static str,
    section: &'static str,
    title: &'static str,
    run: fn(&Bench<'_>) -> Outcome,
) -> Check {
    Check::new(Level::Should, id, section, title, run)
}

const fn reference(
    id: &'static str,
    section: &'static str,
    title: &'static str,
    run: fn(&Bench<'_>) -> Outcome,
) -> Check {
    Check::new(Level::Reference, id, section, title, run)
}

/// All of them, in the order in which they are run. Those of STATUS come last: nothing may rely on it.
pub fn all() -> impl Iterator<Item = &'static Check> {
    let groups: [&'static [Check]; 15] = [
        version::CHECKS,
        config::CHECKS,
        environment::CHECKS,
        error::CHECKS,
        add::CHECKS,
        result::CHECKS,
        del::CHECKS,
        check::CHECKS,
        ipam::CHECKS,
        chained::CHECKS,
        delegation::CHECKS,
        concurrency::CHECKS,
        pool::CHECKS,
        gc::CHECKS,
        status::CHECKS,
    ];
    groups.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique() {
        let mut seen = BTreeSet::new();
        for check in all() {
            assert!(seen.insert(check.id), "{} stands twice", check.id);
        }
    }

    #[test]
    fn the_list_of_rules_names_exactly_these() {
        let document = include_str!("../docs/requirements.md");
        let named: BTreeSet<&str> = document.split('`').skip(1).step_by(2).collect();
        for check in all() {
            assert!(named.contains(check.id), "docs/requirements.md lacks {}", check.id);
        }
        let ids: BTreeSet<&str> = all().map(|check| check.id).collect();
        let groups: BTreeSet<&str> = ids.iter().filter_map(|id| id.split('/').next()).collect();
        for word in named {
            let Some((group, rule)) = word.split_once('/') else { continue };
            let is_id = groups.contains(group) && !rule.contains(['/', '.', ' ']);
            assert!(!is_id || ids.contains(word), "docs/requirements.md names {word}");
        }
    }
}
