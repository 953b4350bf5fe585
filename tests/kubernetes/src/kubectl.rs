//! `kubectl`, as a person at the control plane uses it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::command;
use harness::namespace::{Namespace, end_with_caller};
use harness::wait::wait_until;
use serde_json::Value;

use crate::programs;

/// States of a container from which it does not come back by itself.
const HOPELESS: [&str; 6] = [
    "ErrImagePull",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CrashLoopBackOff",
];

/// A request to the API server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Its kind, and itself.
    pub(crate) body: Option<(&'a str, &'a str)>,
}

/// `kubectl` with administrator's rights.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    /// Where it runs; none for where this program does.
    namespace: Option<Namespace>,
    program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(namespace: &Namespace, kubeconfig: PathBuf) -> Result<Self> {
        let program = programs::built("kubectl")?;
        let cache = kubeconfig.with_extension("cache");
        Ok(Self { namespace: Some(namespace.clone()), program, kubeconfig, cache })
    }

    /// For a cluster that this machine reaches.
    ///
    /// # Errors
    /// When there is no such file.
    pub(crate) fn here(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = kubeconfig
            .canonicalize()
            .with_context(|| format!("--kubeconfig {}", kubeconfig.display()))?;
        let cache = programs::directory()?.join("cache");
        Ok(Self { namespace: None, program: programs::built("kubectl")?, kubeconfig, cache })
    }

    /// Asks the API server with a token in place of an administrator's rights, and returns status and answer.
    pub(crate) fn ask_with(&self, token: &str, ask: &Ask<'_>) -> Result<(String, String)> {
        let config: Value = serde_json::from_str(&fs::read_to_string(&self.kubeconfig)?)?;
        let cluster = &config["clusters"][0]["cluster"];
        let of_cluster = |name: &str| cluster[name].as_str().context("kubeconfig");
        let mut curl = self.beside("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--request", ask.method]);
        curl.args(["--cacert", of_cluster("certificate-authority")?]);
        curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        if let Some((kind, body)) = ask.body {
            curl.args(["--header", &format!("Content-Type: {kind}"), "--data", body]);
        }
        curl.args(["--write-out", "\n%{http_code}"]);
        let said = command::run(curl.arg(format!("{}{}", of_cluster("server")?, ask.path)))?;
        let (answer, status) = said.rsplit_once('\n').context("no status")?;
        Ok((status.to_owned(), answer.to_owned()))
    }

    /// The command, ended after a minute.
    fn command(&self) -> Command {
        self.as_administrator(self.beside(&self.program.to_string_lossy()))
    }

    /// Another program where it runs, ended after a minute.
    pub(crate) fn beside(&self, program: &str) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => command::limited(program),
        }
    }

    /// The same for what stays until it is killed.
    pub(crate) fn service_beside(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.service(program, true),
            None => {
                let mut command = Command::new(program);
                end_with_caller(&mut command);
                command
            }
        }
    }

    /// The command for what stays until it is killed.
    pub(crate) fn service(&self) -> Command {
        self.as_administrator(self.service_beside(&self.program))
    }

    fn as_administrator(&self, mut command: Command) -> Command {
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.env("KUBECACHEDIR", &self.cache);
        command
    }

    /// Runs it with arguments given as words, and returns its standard output.
    pub(crate) fn run(&self, words: &str) -> Result<String> {
        command::run(self.command().args(words.split_whitespace()))
    }

    /// Objects as the API has them.
    pub(crate) fn get(&self, words: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&format!("get -o json {words}"))?)?)
    }

    /// Creates or changes objects.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        self.apply_text(&list(objects))
    }

    /// Creates or changes the objects of a manifest.
    pub(crate) fn apply_text(&self, manifest: &str) -> Result<()> {
        let mut apply = self.command();
        apply.args(["apply", "--server-side", "--filename", "-"]);
        let output = command::feed(&mut apply, manifest)?;
        command::checked(&apply, &output).map(drop)
    }

    /// Has the API server judge objects, and returns what becomes of each. Nothing changes.
    pub(crate) fn try_objects(&self, objects: &[Value]) -> Result<String> {
        let mut apply = self.trial();
        let output = command::feed(apply.args(["--filename", "-"]), &list(objects))?;
        command::checked(&apply, &output)
    }

    /// The same for a directory of Kustomize.
    pub(crate) fn try_directory(&self, directory: &Path) -> Result<String> {
        command::run(self.trial().arg("--kustomize").arg(directory))
    }

    fn trial(&self) -> Command {
        let mut apply = self.command();
        apply.args(["apply", "--server-side", "--dry-run=server", "--validate=strict"]);
        // What is there may have been applied by the client.
        apply.arg("--force-conflicts");
        apply
    }

    /// Runs a program in a pod.
    pub(crate) fn exec(&self, namespace: &str, pod: &str, program: &[&str]) -> Result<String> {
        let mut exec = self.command();
        exec.args(["exec", "--namespace", namespace, pod, "--"]).args(program);
        command::run(&mut exec)
    }

    /// Waits until all pods of a namespace are Ready. A pod that never will be is an error at once.
    pub(crate) fn wait_for_pods(&self, namespace: &str, timeout: Duration) -> Result<Value> {
        let mut hopeless = None;
        let pods = wait_until("pods that are Ready", timeout, || {
            let pods = self.get(&format!("pods --namespace {namespace}"))?;
            let items = pods["items"].as_array().context("items")?;
            hopeless = items.iter().find_map(is_hopeless);
            if hopeless.is_some() {
                return Ok(pods);
            }
            ensure!(!items.is_empty(), "no pods in {namespace}");
            for pod in items {
                ensure!(condition(pod, "Ready"), "{} is not Ready", pod["metadata"]["name"]);
            }
            Ok(pods)
        });
        if let Some((pod, why)) = hopeless {
            let logs = self.run(&format!("logs --namespace {namespace} {pod} --tail=5"));
            bail!("{why}\n{}", logs.unwrap_or_default());
        }
        pods.with_context(|| {
            let events = self.run(&format!("get events --namespace {namespace}"));
            format!("pods in {namespace}; events:\n{}", events.unwrap_or_default())
        })
    }
}

fn list(objects: &[Value]) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// Whether a condition of an object is true.
pub(crate) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

/// What the object says of that; nothing where it does not.
pub(crate) fn message<'a>(object: &'a Value, kind: &str) -> &'a str {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut texts = all.filter(|one| one["type"] == kind).map(|one| one["message"].as_str());
    texts.next().flatten().unwrap_or_default()
}

/// The name of a pod that never will be Ready, and why.
fn is_hopeless(pod: &Value) -> Option<(String, String)> {
    let containers = pod["status"]["containerStatuses"].as_array()?;
    let waiting = containers.iter().map(|container| &container["state"]["waiting"]);
    let found = waiting
        .into_iter()
        .find(|waiting| HOPELESS.iter().any(|reason| waiting["reason"] == *reason))?;
    let name = pod["metadata"]["name"].as_str()?.to_owned();
    let why = format!("pod {name}: {}: {}", found["reason"], found["message"]);
    Some((name, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_image_is_hopeless() {
        let pod = |reason: &str| {
            json!({"metadata": {"name": "a"}, "status": {"containerStatuses": [
                {"state": {"waiting": {"reason": reason, "message": "m"}}}
            ]}})
        };
        assert!(is_hopeless(&pod("ImagePullBackOff")).is_some());
        assert!(is_hopeless(&pod("ContainerCreating")).is_none());
    }
}
