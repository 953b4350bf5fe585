//! Checks the rules of the house (CONTRIBUTING.md) that a machine can check.

mod abi;
mod comments;
mod documents;
mod limits;
mod testing;
mod tree;
mod words;

use std::fmt;

use anyhow::{Result, bail};
use clap::Args;

use self::tree::Tree;
use crate::paths;

/// Options of `tidy`.
#[derive(Args)]
pub(crate) struct Options {
    /// Records the map layouts as they are now, with their version
    #[arg(long)]
    bless: bool,
}

/// A place that breaks a rule.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// All checks.
const CHECKS: [fn(&Tree) -> Vec<Finding>; 15] = [
    limits::file_length,
    limits::function_length,
    limits::module_style,
    abi::layouts_in_one_place,
    abi::layouts_are_asserted,
    abi::layouts_are_plain,
    abi::names_fit,
    abi::version_rises,
    words::in_their_place,
    words::no_allow,
    comments::verifier_names_a_kernel,
    comments::todo_has_a_reference,
    testing::no_habits,
    testing::every_drop_is_tested,
    documents::check,
];

/// Runs all checks and prints what they find.
pub(crate) fn run(options: &Options) -> Result<()> {
    let tree = Tree::read(&paths::root())?;
    if options.bless {
        abi::bless(&tree, &paths::root())?;
        return Ok(());
    }
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} places break rules of the house (CONTRIBUTING.md)", findings.len());
    }
    println!("tidy: {} sources, no findings", tree.sources.len());
    Ok(())
}

/// Runs a check on a tree of one file, for tests.
#[cfg(test)]
fn check_one(check: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<Finding> {
    check(&Tree::from_texts(&[(path, text)]))
}
