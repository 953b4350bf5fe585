//! Builds the test binaries and sorts them into tiers.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Tier;
use crate::{build, paths};

/// A built test binary.
pub(super) struct TestBinary {
    pub(super) tier: Tier,
    pub(super) name: String,
    /// The binary; `None` for the examples in the documentation, which cargo runs itself.
    path: Option<PathBuf>,
    /// Directory of its package, in which tests run.
    package: PathBuf,
}

impl TestBinary {
    /// Returns the command that runs those tests whose names contain one of the filters.
    pub(super) fn command(&self, filter: &[String]) -> Command {
        let Some(path) = &self.path else {
            let mut cargo = build::cargo();
            cargo.args(["test", "--quiet", "--workspace", "--doc", "--locked", "--"]).args(filter);
            return cargo;
        };
        let mut command = Command::new(path);
        command.args(filter).current_dir(&self.package).env("CARGO_MANIFEST_DIR", &self.package);
        command
    }
}

/// Builds all test binaries of the workspace.
pub(super) fn build() -> Result<Vec<TestBinary>> {
    let output = build::cargo()
        .args(["test", "--workspace", "--no-run", "--locked"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    if !output.status.success() {
        bail!("building the tests failed ({})", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut binaries: Vec<TestBinary> = messages.lines().filter_map(read).collect();
    binaries.push(TestBinary {
        tier: Tier::Core,
        name: "examples in the documentation".to_owned(),
        path: None,
        package: paths::root(),
    });
    binaries.sort_by(|a, b| (a.tier, &a.name).cmp(&(b.tier, &b.name)));
    Ok(binaries)
}

/// Reads one message of cargo; `None` if it is not about a test binary.
fn read(message: &str) -> Option<TestBinary> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let package = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let package_name = package.file_name()?.to_string_lossy().into_owned();
    let target = message["target"]["name"].as_str()?;
    let is_integration = message["target"]["kind"][0] == "test";
    let tier = match target {
        "prog" if is_integration && package_name == "tests" => Tier::Prog,
        "net" if is_integration && package_name == "tests" => Tier::Net,
        "runtimes" if is_integration && package_name == "tests" => Tier::Runtimes,
        "deploy" if is_integration && package_name == "tests" => Tier::Deploy,
        "plugins" if is_integration && package_name == "conformance" => Tier::Net,
        _ => Tier::Core,
    };
    Some(TestBinary {
        tier,
        name: format!("{package_name}/{target}"),
        path: Some(message["executable"].as_str()?.into()),
        package,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(package: &str, kind: &str, name: &str) -> String {
        serde_json::json!({
            "reason": "compiler-artifact",
            "manifest_path": format!("/src/{package}/Cargo.toml"),
            "target": { "kind": [kind], "name": name },
            "profile": { "test": true },
            "executable": "/target/debug/deps/x",
        })
        .to_string()
    }

    #[test]
    fn binaries_are_sorted_into_tiers() {
        let tier = |package, kind, name| read(&message(package, kind, name)).unwrap().tier;
        assert_eq!(tier("tests", "test", "prog"), Tier::Prog);
        assert_eq!(tier("tests", "test", "net"), Tier::Net);
        assert_eq!(tier("tests", "test", "runtimes"), Tier::Runtimes);
        assert_eq!(tier("tests/conformance", "test", "plugins"), Tier::Net);
        assert_eq!(tier("tests", "test", "deploy"), Tier::Deploy);
        assert_eq!(tier("tests", "lib", "tests"), Tier::Core);
        assert_eq!(tier("cni-shim", "test", "net"), Tier::Core);
    }

    #[test]
    fn what_is_no_test_binary_is_left_out() {
        assert!(read("   Compiling x").is_none());
        let library = message("tests", "lib", "tests").replace("true", "false");
        assert!(read(&library).is_none());
    }
}
