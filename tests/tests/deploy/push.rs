//! The image in a registry, fetched from there by another library than the one that pushes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::binaries;
use tests::command::{self, Process};

use super::image::{Work, refused};
use super::objects::VERSION;

const USER: &str = "somebody";
const PASSWORD: &str = "a secret";
/// The same for the files of Docker and podman: `somebody:a secret`.
const ENCODED: &str = "c29tZWJvZHk6YSBzZWNyZXQ=";

/// A registry on this machine, in memory. It ends with the test.
struct Registry {
    address: String,
    is_guarded: bool,
    _ended_with_us: Process,
}

impl Registry {
    fn start(is_guarded: bool) -> Result<Self> {
        let mut serve = Command::new(binaries::go("registry")?);
        serve.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = as_somebody(&mut serve, is_guarded).spawn().context("registry")?;
        let stdout = child.stdout.take().context("its output")?;
        let ended_with_us = Process::new(child);
        let address = BufReader::new(stdout).lines().next().context("it ended")??;
        Ok(Self { address, is_guarded, _ended_with_us: ended_with_us })
    }

    fn reference(&self) -> String {
        format!("{}/net/podwire:1", self.address)
    }

    /// Fetches all of the image.
    fn pull(&self) -> Result<Value> {
        let mut pull = command::limited(&binaries::go("registry")?.to_string_lossy());
        pull.args(["pull", &self.reference()]);
        Ok(serde_json::from_str(&command::run(as_somebody(&mut pull, self.is_guarded))?)?)
    }
}

fn as_somebody(command: &mut Command, is_wanted: bool) -> &mut Command {
    match is_wanted {
        true => command.env("REGISTRY_USER", USER).env("REGISTRY_PASSWORD", PASSWORD),
        false => command,
    }
}

impl Work {
    /// `cargo xtask image --push`.
    fn push(&self, reference: &str) -> Result<Command> {
        let mut push = self.image()?;
        push.args(["--push", reference]);
        Ok(push)
    }

    /// A file as `docker login` and `podman login` write it.
    fn credentials(&self, name: &str, registry: &Registry) -> Result<PathBuf> {
        let file = self.0.join(name);
        let known = json!({"auths": {&registry.address: {"auth": ENCODED}}});
        fs::write(&file, known.to_string())?;
        Ok(file)
    }
}

#[test]
fn what_is_pushed_is_what_was_packed() -> Result<()> {
    let (registry, work) = (Registry::start(false)?, Work::new("pushed")?);
    let said = command::run(&mut work.push(&registry.reference())?)?;
    let (digest, pulled) = (work.digest()?, registry.pull()?);
    assert_eq!(pulled["digest"], digest);
    assert_eq!(pulled["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    assert_eq!(pulled["platforms"][0]["platform"], format!("linux/{arch}"));
    let labels = &pulled["platforms"][0]["labels"];
    assert_eq!(labels["org.opencontainers.image.version"], VERSION);
    let pinned = format!("{}/net/podwire@{}", registry.address, digest.as_str().context("one")?);
    ensure!(said.contains(&pinned), "{said}");
    Ok(())
}

#[test]
fn credentials_are_where_podman_and_docker_have_them() -> Result<()> {
    let (work, registry) = (Work::new("credentials")?, Registry::start(true)?);
    let error = refused(&mut work.push(&registry.reference())?)?;
    ensure!(error.contains("`skopeo login`"), "{error}");
    let absent = format!("{:#}", registry.pull().expect_err("there is nothing"));
    ensure!(absent.contains("NAME_UNKNOWN"), "{absent}");
    fs::create_dir_all(work.0.join("home/.docker"))?;
    for variable in ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "HOME"] {
        let registry = Registry::start(true)?;
        let (file, value) = match variable {
            "REGISTRY_AUTH_FILE" => ("auth.json", work.0.join("auth.json")),
            "DOCKER_CONFIG" => ("config.json", work.0.clone()),
            _ => ("home/.docker/config.json", work.0.join("home")),
        };
        work.credentials(file, &registry)?;
        command::run(work.push(&registry.reference())?.env(variable, value))?;
        assert_eq!(registry.pull()?["digest"], work.digest()?, "{variable}");
    }
    Ok(())
}

#[test]
fn a_registry_that_is_not_there_is_said() -> Result<()> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let work = Work::new("unreachable")?;
    let error = refused(&mut work.push(&format!("{address}/podwire:1"))?)?;
    ensure!(error.contains("the registry cannot be reached"), "{error}");
    ensure!(error.contains("connection refused"), "{error}");
    Ok(())
}

/// Before anything is built or packed.
#[test]
fn a_reference_that_says_too_little_is_refused() -> Result<()> {
    let work = Work::new("reference")?;
    for (reference, missing) in
        [("podwire:1", "names no registry"), ("r.example.com/podwire", "has no tag")]
    {
        let error = refused(&mut work.push(reference)?)?;
        ensure!(error.contains(missing) && error.contains("REGISTRY/NAME:TAG"), "{error}");
        ensure!(!work.archive().exists(), "it was packed");
    }
    Ok(())
}
