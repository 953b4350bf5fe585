//! The image: what is in it, and who takes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::render::file;
use tests::{binaries, command};

use super::objects::VERSION;

/// What is packed in place of binaries, and where; it is removed in the end, or by the next run if this one is killed.
pub(super) struct Work(pub(super) PathBuf);

impl Work {
    pub(super) fn new(name: &str) -> Result<Self> {
        let work = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{name}")));
        if work.0.exists() {
            fs::remove_dir_all(&work.0)?;
        }
        for directory in ["built", "home"] {
            fs::create_dir_all(work.0.join(directory))?;
        }
        for program in ["podwire-agent", "podwire"] {
            fs::write(work.0.join("built").join(program), program)?;
        }
        Ok(work)
    }

    /// With an image in it.
    fn packed(name: &str) -> Result<Self> {
        let work = Self::new(name)?;
        command::run(&mut work.image()?)?;
        Ok(work)
    }

    /// `cargo xtask image`, as somebody without credentials.
    pub(super) fn image(&self) -> Result<Command> {
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

    pub(super) fn archive(&self) -> PathBuf {
        self.0.join("image.tar")
    }

    /// The digest in the archive.
    pub(super) fn digest(&self) -> Result<Value> {
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--to-stdout", "--file"]).arg(self.archive()).arg("index.json");
        let index: Value = serde_json::from_str(&command::run(&mut tar)?)?;
        Ok(index["manifests"][0]["digest"].clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What it says that does not pack, or does not push.
pub(super) fn refused(image: &mut Command) -> Result<String> {
    let output = command::output(image)?;
    ensure!(!output.status.success(), "it was done");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whenever they are packed, and whoever owns them.
#[test]
fn the_same_programs_give_the_same_bytes() -> Result<()> {
    let mut packed = Vec::new();
    for name in ["first", "second"] {
        packed.push(fs::read(Work::packed(name)?.archive())?);
    }
    ensure!(packed[0] == packed[1], "two images of the same programs differ");
    Ok(())
}

#[test]
fn podman_loads_it() -> Result<()> {
    let work = Work::packed("podman")?;
    let policy = work.0.join("policy.json");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
    let podman = || {
        let mut podman = command::limited("podman");
        podman.arg("--root").arg(work.0.join("root")).arg("--runroot").arg(work.0.join("run"));
        podman.args(["--storage-driver", "vfs"]);
        podman
    };
    let mut load = podman();
    load.arg("load").arg("--signature-policy").arg(policy).arg("--input").arg(work.archive());
    command::run(&mut load)?;
    let name = format!("docker.io/podwire/podwire:{VERSION}");
    let mut inspect = podman();
    let digest = command::run(inspect.args(["inspect", "--format", "{{.Digest}}", &name]))?;
    assert_eq!(work.digest()?, digest.trim());
    Ok(())
}

/// The list of software, by the files of the archive.
#[test]
fn the_list_names_what_agent_plugin_and_bpf_object_are_made_of() -> Result<()> {
    let work = Work::packed("list")?;
    let files = work.0.join("files");
    unpack(&work.archive(), &files)?;
    let blob = |digest: &Value| {
        let digest = digest.as_str().context("a digest")?;
        Ok::<_, anyhow::Error>(files.join("blobs").join(digest.replace(':', "/")))
    };
    let manifest: Value = serde_json::from_str(&fs::read_to_string(blob(&work.digest()?)?)?)?;
    unpack(&blob(&manifest["layers"][0]["digest"])?, &files.join("root"))?;
    let list: Value = serde_json::from_str(&fs::read_to_string(files.join("root/sbom.cdx.json"))?)?;
    let components = list["components"].as_array().context("components")?;
    for of in ["kube-client", "rtnetlink", "aya-ebpf", "nftables"] {
        ensure!(components.iter().any(|component| component["name"] == of), "no {of}: {list}");
    }
    Ok(())
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut tar = Command::new("tar");
    command::run(tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(to))
        .map(drop)
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

/// What users install does not say on whose machine it was built.
#[test]
fn programs_that_say_where_their_sources_were_are_refused() -> Result<()> {
    let work = Work::new("sources")?;
    let source = file("cni-shim").canonicalize()?.join("src/main.rs");
    fs::write(work.0.join("built/podwire"), format!("at {}:1", source.display()))?;
    let error = refused(&mut work.image()?)?;
    ensure!(error.contains("podwire says that its sources were in"), "{error}");
    ensure!(!work.archive().exists(), "it was packed");
    Ok(())
}
