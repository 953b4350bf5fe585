//! A delegated plugin as a program.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::lease::{self, Lease};
use crate::delegation::Delegation;
use crate::error::{Context as _, DECODE, INVALID_ENVIRONMENT, failure};
use crate::protocol::Failure;
use crate::request::{Config, Environment};

/// A plugin that was found on `CNI_PATH`.
#[derive(Debug)]
pub(crate) struct Delegate {
    found: Delegation,
    input: Vec<u8>,
}

impl Delegate {
    pub(super) fn find(
        name: &str,
        environment: &Environment,
        config: &Config,
    ) -> Result<Self, Failure> {
        let path = environment.path();
        if path.is_empty() {
            return Err(failure(
                INVALID_ENVIRONMENT,
                "CNI_PATH is missing",
                format!("\"ipam.type\" is {name:?}, which is searched for there"),
            ));
        }
        let mut found = Delegation {
            plugin: name.into(),
            path: path.to_owned(),
            args: environment.args().to_owned(),
            config: Value::Null,
        };
        let mut candidates = std::env::split_paths(path).map(|directory| directory.join(name));
        match candidates.find(|candidate| candidate.is_absolute() && candidate.is_file()) {
            Some(plugin) => found.plugin = plugin,
            None => return Err(found.failed(&format!("there is none in CNI_PATH={path}"))),
        }
        Ok(Self { found, input: config.text.clone() })
    }

    /// What the agent keeps, to give the lease back.
    pub(super) fn delegation(&self) -> Result<Delegation, Failure> {
        let config = serde_json::from_slice(&self.input)
            .context(DECODE, || "read the network configuration".into())?;
        Ok(Delegation { config, ..self.found.clone() })
    }

    pub(super) fn add(&self) -> Result<Lease, Failure> {
        let answer = self.run("ADD")?;
        lease::read(&answer).map_err(|why| self.found.failed(&why))
    }

    /// Runs it with our environment and input; what it says to people reaches them.
    pub(super) fn run(&self, verb: &str) -> Result<Vec<u8>, Failure> {
        let output = self.output(verb, &self.found.plugin);
        let output = output.map_err(|error| self.found.failed(&error.to_string()))?;
        self.found.answer(output)
    }

    fn output(&self, verb: &str, plugin: &Path) -> std::io::Result<std::process::Output> {
        let mut child = Command::new(plugin)
            .env("CNI_COMMAND", verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails may end without reading.
            let _ = stdin.write_all(&self.input);
        }
        child.wait_with_output()
    }
}
