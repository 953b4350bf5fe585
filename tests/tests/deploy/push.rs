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

/// What is packed in place of binaries, and where; it is removed in the end.
struct Work(PathBuf);

impl Work {
    fn new(name: &str) -> Result<Self> {
        let work =
            Self(std::env::temp_dir().join(format!("podwire-{name}-{}", std::process::id())));
        for directory in ["built", "home"] {
            fs::create_dir_all(work.0.join(directory))?;
        }
        for program in ["podwire-agent", "podwire"] {
            fs::write(work.0.join("built").join(program), program)?;
        }
        Ok(work)
    }

    /// `cargo xtask image --push`.
    fn push(&self, reference: &str) -> Result<Command> {
        let mut push = self.image()?;
        push.args(["--push", reference]);
        Ok(push)
    }

    /// `cargo xtask image`, as somebody without credentials.
    fn image(&self) -> Result<Command> {
        let mut image = command::limited(&binaries::xtask()?.to_string_lossy());
        image.arg("image").arg(format!("--built={}", self.0.join("built").display()));
        image.arg("--output").arg(self.archive());
        image.env("HOME", self.0.join("home")).env_remove("REGISTRY_AUTH_FILE");
        image.env_remove("XDG_RUNTIME_DIR").env_remove("DOCKER_CONFIG");
        for (variable, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let home = std::env::home_dir().context("home")?;
            let place = std::env::var_os(variable).unwrap_or(home.join(directory).into());
            image.env(variable, place);
        }
        Ok(image)
    }

    fn archive(&self) -> PathBuf {
        self.0.join("image.tar")
    }

    /// The digest in the archive.
    fn digest(&self) -> Result<Value> {
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--to-stdout", "--file"]).arg(self.archive()).arg("index.json");
        let index: Value = serde_json::from_str(&command::run(&mut tar)?)?;
        Ok(index["manifests"][0]["digest"].clone())
    }

    /// A file as `docker login` and `podman login` write it.
    fn credentials(&self, name: &str, registry: &Registry) -> Result<PathBuf> {
        let file = self.0.join(name);
        let known = json!({"auths": {&registry.address: {"auth": ENCODED}}});
        fs::write(&file, known.to_string())?;
        Ok(file)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refused(push: &mut Command) -> Result<String> {
    let output = command::output(push)?;
    ensure!(!output.status.success(), "it was pushed");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
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

/// What was built for this machine is not taken for what another one needs.
#[test]
fn programs_for_another_machine_are_refused() -> Result<()> {
    let work = Work::new("platform")?;
    fs::copy(binaries::xtask()?, work.0.join("built/podwire-agent"))?;
    let platform = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };
    let error = refused(work.image()?.args(["--platform", platform]))?;
    ensure!(error.contains(&format!("podwire-agent is not for {platform}")), "{error}");
    ensure!(!work.archive().exists(), "it was packed");
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
