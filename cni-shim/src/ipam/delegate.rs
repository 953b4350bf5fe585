//! A delegated plugin as a program.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;

use super::lease::{self, Lease};
use super::watch::Life;
use crate::delegation::{DELEGATE_TIME_MAX, Delegation};
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
    ///
    /// It has so much time, as it holds a lock that others may wait for. If we are killed it goes on until then:
    /// `host-local`, killed while it writes, leaves a lease that is nobody's.
    pub(super) fn run(&self, verb: &str) -> Result<Vec<u8>, Failure> {
        match self.talk(verb, DELEGATE_TIME_MAX) {
            Ok(Some(output)) => self.found.answer(output),
            Ok(None) => Err(self.found.late(verb)),
            Err(error) => Err(self.found.failed(&error.to_string())),
        }
    }

    fn start(&self, verb: &str) -> io::Result<Child> {
        let mut command = Command::new(&self.found.plugin);
        command.env("CNI_COMMAND", verb).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own, with what it starts itself.
        command.stderr(Stdio::inherit()).process_group(0).spawn()
    }

    /// What it says; nothing if it has not ended within the limit, and was killed with its group.
    fn talk(&self, verb: &str, limit: Duration) -> io::Result<Option<Output>> {
        let life = Life::new()?;
        let mut child = self.start(verb)?;
        let group = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
        let watch = life.watch(group, limit).inspect_err(|_| {
            let _ = child.kill().and_then(|()| child.wait());
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails may end without reading.
            let _ = stdin.write_all(&self.input);
        }
        let output = child.wait_with_output();
        let was_killed = watch.end()?;
        output.map(|output| (!was_killed).then_some(output))
    }
}

/// Makes a plugin of a script.
///
/// `install` writes it, not this process: a child that another thread has begun to start would hold the file open
/// for writing until it runs its program, and nobody could run the plugin before ("Text file busy").
#[cfg(test)]
pub(super) fn write_plugin(plugin: &std::path::Path, script: &str) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(plugin)
        .stdin(Stdio::piped())
        .spawn()
        .expect("started");
    install.stdin.take().expect("its input").write_all(script.as_bytes()).expect("written");
    assert!(install.wait().expect("an end").success());
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const NEVER: Duration = Duration::from_secs(600);

    /// A plugin that is a script.
    fn run(script: &str, limit: Duration) -> Option<Output> {
        let directory = tempfile::tempdir().expect("a directory");
        let plugin = directory.path().join("plugin");
        write_plugin(&plugin, &format!("#!/bin/sh\n{script}\n"));
        let found =
            Delegation { plugin, path: "/".into(), args: String::new(), config: Value::Null };
        let delegate = Delegate { found, input: vec![b' '; 1 << 20] };
        delegate.talk("ADD", limit).expect("an end")
    }

    #[test]
    fn one_that_answers_is_heard() {
        let output = run("cat > /dev/null; echo $CNI_COMMAND", NEVER).expect("in time");
        assert_eq!(output.stdout, b"ADD\n");
        let output = run("exit 3", NEVER).expect("in time");
        assert_eq!(output.status.code(), Some(3), "it has not read its input");
    }

    /// It neither reads nor writes, and has a child that has its output.
    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let start = Instant::now();
        assert!(run("sleep 1000 & sleep 1000", Duration::from_millis(100)).is_none());
        assert!(start.elapsed() < NEVER);
    }
}
