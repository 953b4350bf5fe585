//! The runtime's side of one check: containers, calls, and what is undone at the end.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;
use serde_json::Value;

use crate::interrupt;
use crate::namespace::{Namespace, unique};
use crate::process::{Ended, run};
use crate::reply::Reply;
use crate::setup::{Plugin, Setup};
use crate::stop::{Outcome, Stop, fail};

/// The name of interfaces that does not matter to a check.
pub const IFNAME: &str = "eth0";

/// A container.
#[derive(Debug)]
pub struct Container {
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// The result of the plugins before the one under test.
    pub before: Option<Value>,
}

/// A place to run one check in, with one version of the specification.
#[derive(Debug)]
pub struct Bench<'a> {
    /// What is tested.
    pub setup: &'a Setup,
    /// `cniVersion` of requests.
    pub version: &'static str,
    /// `CNI_PATH` of requests.
    pub cni_path: String,
    /// What DEL is called for at the end, newest last.
    undo: Mutex<Vec<Request>>,
    /// They last until then.
    containers: Mutex<Vec<Arc<Container>>>,
}

/// A call that has not been made.
#[derive(Clone, Debug)]
pub struct Request {
    plugin: Plugin,
    verb: String,
    environment: BTreeMap<String, String>,
    config: Value,
    input: Option<String>,
}

impl<'a> Bench<'a> {
    /// Makes one. It has nothing in it.
    pub fn new(setup: &'a Setup, version: &'static str) -> Self {
        let cni_path = setup.cni_path.clone();
        Self { setup, version, cni_path, undo: Mutex::default(), containers: Mutex::default() }
    }

    /// A container with a namespace of its own. The plugins before the one under test have run.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn container(&self) -> Outcome<Arc<Container>> {
        self.container_with(&unique())
    }

    /// As [`Self::container`], with this id.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn container_with(&self, id: &str) -> Outcome<Arc<Container>> {
        let namespace = Namespace::new()?;
        let mut container = Container { id: id.to_owned(), namespace, before: None };
        for plugin in &self.setup.before {
            let mut request = self.on("ADD", &container);
            request.plugin = plugin.clone();
            request.config = self.versioned(&plugin.config);
            if let Some(before) = &container.before {
                request = request.prev_result(before);
            }
            container.before = Some(self.run(request)?.result()?);
        }
        let container = Arc::new(container);
        locked(&self.containers).push(Arc::clone(&container));
        Ok(container)
    }

    /// A call that is for no container.
    pub fn call(&self, verb: &str) -> Request {
        let plugin = self.setup.plugin.clone();
        let mut environment = BTreeMap::new();
        environment.insert("CNI_COMMAND".to_owned(), verb.to_owned());
        environment.insert("CNI_PATH".to_owned(), self.cni_path.clone());
        let config = self.versioned(&plugin.config);
        Request { plugin, verb: verb.to_owned(), environment, config, input: None }
    }

    /// A call for a container's interface `eth0`.
    pub fn on(&self, verb: &str, container: &Container) -> Request {
        let path = container.namespace.path().display().to_string();
        let request = self.call(verb);
        let request = request.env("CNI_CONTAINERID", &container.id).env("CNI_IFNAME", IFNAME);
        let request = request.env("CNI_NETNS", &path);
        match (&container.before, verb) {
            (Some(before), "ADD" | "DEL") => request.prev_result(before),
            _ => request,
        }
    }

    /// Attaches a container, and returns the result.
    ///
    /// # Errors
    /// When that fails.
    pub fn add(&self, container: &Container) -> Outcome<Value> {
        self.run(self.on("ADD", container))?.result()
    }

    /// Detaches a container as a runtime does.
    ///
    /// # Errors
    /// When that fails.
    pub fn del(&self, container: &Container, result: &Value) -> Outcome {
        self.run(self.on("DEL", container).prev_result(result))?.succeeded()
    }

    /// Checks a container as a runtime does.
    ///
    /// # Errors
    /// When the plugin cannot be run.
    pub fn check(&self, container: &Container, result: &Value) -> Outcome<Reply> {
        self.run(self.on("CHECK", container).prev_result(result))
    }

    /// Makes a call. Whatever an ADD makes is removed when this bench is dropped.
    ///
    /// # Errors
    /// When the plugin cannot be started, or runs too long.
    pub fn run(&self, request: Request) -> Outcome<Reply> {
        if interrupt::requested() {
            return Err(Stop::Broken(anyhow!("interrupted")));
        }
        let reply = self.execute(&request);
        if request.verb == "ADD" {
            locked(&self.undo).push(request.of("DEL").stdin_from_config());
        }
        reply
    }

    fn execute(&self, request: &Request) -> Outcome<Reply> {
        let mut command = Command::new(&request.plugin.path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CNI_") && !is_for_wrappers(&name) {
                command.env_remove(name);
            }
        }
        command.envs(&request.environment);
        let input = request.input.clone().unwrap_or_else(|| request.config.to_string());
        let call = request.describe();
        match run(&mut command, input.as_bytes(), &self.setup.host, self.setup.limit)? {
            Ended::Killed => fail(format!("{call} was killed after {:?}", self.setup.limit)),
            Ended::Well(output) => Ok(Reply {
                call,
                status: output.status,
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }

    fn versioned(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["cniVersion"] = self.version.into();
        config
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Variables by which people steer wrappers around a plugin (such as `cni-mutant`).
fn is_for_wrappers(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("CNI_MUTANT_")
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let undo = std::mem::take(&mut *locked(&self.undo));
        for request in undo.iter().rev() {
            let _ = self.execute(request);
        }
    }
}

impl Request {
    /// Asks another plugin, with the same configuration.
    #[must_use]
    pub fn to(mut self, plugin: &Plugin) -> Self {
        self.plugin = plugin.clone();
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Sets a key of the configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config[key] = value.into();
        self
    }

    /// Removes a key of the configuration.
    #[must_use]
    pub fn unset(mut self, key: &str) -> Self {
        if let Some(config) = self.config.as_object_mut() {
            config.remove(key);
        }
        self
    }

    /// Sets `prevResult`.
    #[must_use]
    pub fn prev_result(self, result: &Value) -> Self {
        self.set("prevResult", result.clone())
    }

    /// Gives this to standard input, whatever it is.
    #[must_use]
    pub fn stdin(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// The configuration as it is given.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The variables as they are given.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    fn of(mut self, verb: &str) -> Self {
        verb.clone_into(&mut self.verb);
        self.env("CNI_COMMAND", verb)
    }

    fn stdin_from_config(mut self) -> Self {
        self.input = None;
        self
    }

    fn describe(&self) -> String {
        let version = self.config["cniVersion"].as_str().unwrap_or("none");
        let name = self.plugin.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} {} ({version})", self.verb)
    }
}
