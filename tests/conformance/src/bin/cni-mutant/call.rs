//! What is asked and answered, and the tools for both.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// A call of the plugin.
pub(crate) struct Call {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) input: String,
    pub(crate) config: Value,
}

/// Its answer.
#[derive(Default)]
pub(crate) struct Reply {
    pub(crate) failed: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Call {
    pub(crate) fn read() -> Result<Self> {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input)?;
        let environment = std::env::vars().collect();
        let config = serde_json::from_str(&input).unwrap_or_default();
        Ok(Self { environment, input, config })
    }

    pub(crate) fn env(&self, name: &str) -> &str {
        self.environment.get(name).map_or("", String::as_str)
    }

    pub(crate) fn verb(&self) -> &str {
        self.env("CNI_COMMAND")
    }

    pub(crate) fn version(&self) -> &str {
        self.config["cniVersion"].as_str().unwrap_or("1.1.0")
    }

    pub(crate) fn base() -> PathBuf {
        std::env::var_os("CNI_MUTANT_BASE").unwrap_or_default().into()
    }

    pub(crate) fn is_first(&self) -> bool {
        Self::base().ends_with("bridge")
    }

    /// Runs a plugin with this environment and input.
    pub(crate) fn execute(&self, program: &Path, config: &str) -> Result<Reply> {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may end without reading.
            let _ = stdin.write_all(config.as_bytes());
        }
        Ok(Reply::from(child.wait_with_output()?))
    }

    /// The same for another verb, with some variables changed.
    pub(crate) fn with(&self, variables: &[(&str, &str)]) -> Self {
        let mut environment = self.environment.clone();
        for (name, value) in variables {
            environment.insert((*name).to_owned(), (*value).to_owned());
        }
        Self { environment, input: self.input.clone(), config: self.config.clone() }
    }

    /// Changes the configuration.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.input = self.config.to_string();
    }

    /// The directory with a file for each attachment of the network.
    pub(crate) fn records(&self) -> Result<PathBuf> {
        let state = self.env("CNI_MUTANT_STATE");
        let name = self.config["name"].as_str().unwrap_or("none").replace('/', "_");
        let directory = Path::new(state).join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// The file of this attachment: it holds the path of the namespace.
    pub(crate) fn record(&self) -> Result<PathBuf> {
        let name = format!("{}@{}", self.env("CNI_CONTAINERID"), self.env("CNI_IFNAME"));
        Ok(self.records()?.join(name.replace('/', "_")))
    }

    /// Whether the container has the interface.
    pub(crate) fn has_interface(&self) -> bool {
        self.ip(&["link", "show", self.env("CNI_IFNAME")])
    }

    /// Runs `ip` in the container; whether it succeeded.
    pub(crate) fn ip(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.env("CNI_NETNS"))).arg("ip").args(arguments);
        command.output().is_ok_and(|output| output.status.success())
    }
}

/// Makes an interface on the host that nobody removes.
pub(crate) fn litter_host() {
    let names = [format!("left{}", std::process::id()), format!("over{}", std::process::id())];
    let [one, other] = &names;
    let _ = Command::new("ip")
        .args(["link", "add", one, "type", "veth", "peer", "name", other])
        .output();
}

impl Reply {
    pub(crate) fn success() -> Self {
        Self::default()
    }

    pub(crate) fn result(document: &Value) -> Self {
        Self { stdout: document.to_string(), ..Self::default() }
    }

    pub(crate) fn error(version: &str, code: u64, message: &str) -> Self {
        let document = json!({"cniVersion": version, "code": code, "msg": message, "details": ""});
        Self { failed: true, stdout: document.to_string(), ..Self::default() }
    }

    /// Changes the document, if there is one.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        if let Ok(mut document) = serde_json::from_str(&self.stdout) {
            change(&mut document);
            self.stdout = document.to_string();
        }
    }

    pub(crate) fn code(&self) -> u64 {
        let document: Value = serde_json::from_str(&self.stdout).unwrap_or_default();
        document["code"].as_u64().unwrap_or_default()
    }

    pub(crate) fn print(&self) -> ExitCode {
        print!("{}", self.stdout);
        eprint!("{}", self.stderr);
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

impl From<Output> for Reply {
    fn from(output: Output) -> Self {
        Self {
            failed: !output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
