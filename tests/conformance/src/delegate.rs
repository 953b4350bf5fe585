//! A plugin for addresses that stands in for the real one, and notes how it is called.
//!
//! A script under the real one's name runs this program again. It records environment and input, and
//! then either fails, as it is told to, or runs the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::setup::find;

/// First argument of this program when it stands in.
pub const ARGUMENT: &str = "stand-in";
/// What it says on standard error.
pub const STDERR: &str = "cni-conformance: this is the delegated plugin";
/// The code of its errors.
pub const CODE: u64 = 117;

/// A directory with a stand-in, to be first in `CNI_PATH`.
#[derive(Debug)]
pub struct StandIn {
    directory: TempDir,
}

/// How it was called once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    /// `CNI_COMMAND`.
    pub verb: String,
    /// All variables.
    pub environment: BTreeMap<String, String>,
    /// Standard input.
    pub input: Value,
    /// What the real one printed, if it was run.
    pub output: Value,
}

#[derive(Serialize, Deserialize)]
struct Orders {
    real: PathBuf,
    fail: BTreeSet<String>,
}

impl StandIn {
    /// Makes one for the plugin of this name in `cni_path`.
    ///
    /// # Errors
    /// When the real one is not there.
    pub fn new(name: &str, cni_path: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("cnic-").tempdir()?;
        let stand_in = Self { directory };
        let own = std::env::current_exe().context("find this program")?;
        let path = stand_in.path().join(name);
        let script = format!(
            "#!/bin/sh\nexec '{}' {ARGUMENT} '{}'\n",
            own.display(),
            stand_in.path().display()
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        stand_in.order(&Orders { real: find(name, cni_path)?, fail: BTreeSet::new() })?;
        Ok(stand_in)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Lets it fail these verbs, and no others.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn fail(&self, verbs: &[&str]) -> Result<()> {
        let mut orders = read(self.path())?;
        orders.fail = verbs.iter().map(ToString::to_string).collect();
        self.order(&orders)
    }

    /// All calls since the last question.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn calls(&self) -> Result<Vec<Called>> {
        let log = self.path().join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        text.lines().map(|line| serde_json::from_str(line).context("read its log")).collect()
    }

    fn order(&self, orders: &Orders) -> Result<()> {
        Ok(fs::write(self.path().join("orders"), serde_json::to_string(orders)?)?)
    }
}

fn read(directory: &Path) -> Result<Orders> {
    Ok(serde_json::from_str(&fs::read_to_string(directory.join("orders"))?)?)
}

/// Is the stand-in, called by a plugin.
///
/// # Errors
/// When the real plugin cannot be run.
pub fn stand_in(directory: &Path) -> Result<ExitCode> {
    let orders = read(directory)?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let mut called = Called {
        verb: std::env::var("CNI_COMMAND").unwrap_or_default(),
        environment: std::env::vars().collect(),
        input: serde_json::from_slice(&input).unwrap_or_default(),
        output: Value::Null,
    };
    eprintln!("{STDERR}");
    let mut success = true;
    if orders.fail.contains(&called.verb) {
        success = false;
        let version = &called.input["cniVersion"];
        println!(
            "{}",
            json!({"cniVersion": version, "code": CODE, "msg": "told to fail", "details": ""})
        );
    } else if !["GC", "STATUS"].contains(&called.verb.as_str()) {
        // Many plugins for addresses do not know these two; what counts is that they are asked.
        let mut real = Command::new(orders.real);
        let mut child = real.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&input)?;
        }
        let output = child.wait_with_output()?;
        success = output.status.success();
        std::io::stdout().write_all(&output.stdout)?;
        called.output = serde_json::from_slice(&output.stdout).unwrap_or_default();
    }
    let mut log = File::options().create(true).append(true).open(directory.join("log"))?;
    log.write_all(format!("{}\n", serde_json::to_string(&called)?).as_bytes())?;
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
