//! A place for one run of the kit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the distribution has the reference plugins.
pub(crate) const REFERENCE: &str = "/usr/lib/cni";
/// How many containers the networks have addresses for.
pub(crate) const POOL: usize = 4;

/// Directories of one run.
pub(crate) struct Ground {
    directory: TempDir,
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) stderr: String,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration of a reference plugin; `alone` is a bridge without addresses.
    pub(crate) fn config(&self, plugin: &str) -> Result<PathBuf> {
        let ipam = json!({
            "type": "host-local",
            "dataDir": self.path("addresses"),
            "ranges": [[{"subnet": "10.99.0.0/29", "rangeEnd": "10.99.0.5"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        let bridge = json!({
            "type": "bridge",
            "bridge": "kit0",
            "isGateway": true,
            "isDefaultGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": self.path("addresses"),
                "ranges": [[{"subnet": "10.99.0.0/29", "rangeEnd": "10.99.0.5"}]],
            },
        });
        let mut config = match plugin {
            "ptp" => json!({"type": "ptp", "ipam": ipam}),
            "macvlan" => json!({"type": "macvlan", "master": "up0", "ipam": ipam}),
            "host-local" => json!({"type": "bridge", "ipam": ipam}),
            "alone" => json!({"type": "bridge", "bridge": "kit0"}),
            "tuning" => json!({"plugins": [bridge, {"type": "tuning"}]}),
            "tuning by cni-mutant" => json!({"plugins": [bridge, {"type": "cni-mutant"}]}),
            _ => bridge,
        };
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "kit".into();
        let path = self.path("config.json");
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// The kit's command for a plugin.
    pub(crate) fn kit(&self, plugin: &Path, config: &str) -> Result<Command> {
        let mut kit = Command::new(env!("CARGO_BIN_EXE_cni-conformance"));
        kit.arg("--plugin").arg(plugin).arg("--config").arg(self.config(config)?);
        kit.args(["--cni-path", REFERENCE, "--uplink", "up0"]);
        if config != "alone" {
            kit.args(["--pool", &POOL.to_string()]);
        }
        Ok(kit)
    }

    /// The same for the plugin that breaks a rule; none if `rule` is empty.
    pub(crate) fn mutant(&self, rule: &str, base: &str) -> Result<Command> {
        let plugin = Path::new(env!("CARGO_BIN_EXE_cni-mutant"));
        let config = if base == "tuning" { "tuning by cni-mutant" } else { base };
        let mut kit = self.kit(plugin, config)?;
        if base == "host-local" {
            kit.args(["--kind", "ipam"]);
        }
        let real = if base == "alone" { "bridge" } else { base };
        let state = self.path("state");
        std::fs::create_dir_all(&state)?;
        kit.env("CNI_MUTANT_BASE", Path::new(REFERENCE).join(real));
        kit.env("CNI_MUTANT_STATE", state).env("CNI_MUTANT_POOL", POOL.to_string());
        kit.env("CNI_MUTANT_RULE", rule);
        Ok(kit)
    }
}

/// Runs the kit.
pub(crate) fn run(kit: &mut Command) -> Result<Ran> {
    let output = kit.args(["--output", "json"]).output().context("start the kit")?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(Ran { code: output.status.code(), report, stderr })
}

impl Ran {
    /// What became of the checks: name, result and text.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let checks = self.report["checks"].as_array().into_iter().flatten();
        checks.map(|row| {
            (
                row["check"].as_str().unwrap_or_default(),
                row["result"].as_str().unwrap_or_default(),
                row["text"].as_str().unwrap_or_default(),
            )
        })
    }

    /// What nobody expected, for a message.
    pub(crate) fn surprises(&self) -> Vec<String> {
        let expected = ["ok", "known", "does not apply"];
        self.checks()
            .filter(|(_, result, _)| !expected.contains(result))
            .map(|(check, result, text)| format!("{check} {result}: {text}"))
            .collect()
    }
}
