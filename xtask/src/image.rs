//! The container image: an OCI archive, made without a daemon and without a registry.
//!
//! Two builds of the same sources on the same system give the same bytes: nothing in it has a time or an owner
//! of the machine, and files are in order.

mod archive;
mod content;
mod push;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use self::archive::{Blob, Layout};
use self::push::Destination;
use crate::{build, command, paths};

/// Where the archive goes unless told otherwise, in the directory of the build.
const ARCHIVE: &str = "podwire-image.tar";
/// Its name, whose tag is the version.
const NAME: &str = "docker.io/podwire/podwire";

/// Options of `image`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where the archive is put [default: target/podwire-image.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name and tag of the image
    #[arg(long, value_name = "NAME", default_value_t = default_name())]
    name: String,
    /// Builds no binaries: those of the last `cargo xtask build --release` are packed, or those in a directory
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, require_equals = true)]
    built: Option<Option<PathBuf>>,
    /// Pushes the image, too, by skopeo: REGISTRY/NAME:TAG
    #[arg(long, value_name = "REFERENCE")]
    push: Option<Destination>,
    /// The registry may speak plain HTTP, or have a certificate that nobody vouches for; on this machine it may anyway
    #[arg(long, requires = "push")]
    insecure: bool,
}

/// Name and tag that the manifests ask for.
pub(crate) fn default_name() -> String {
    format!("{NAME}:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the binaries, packs them, and pushes the image where that is wanted.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.push.is_some() {
        push::prepare()?;
    }
    if options.built.is_none() {
        build::run(&build::Options::release())?;
    }
    let directory = options.built.clone().flatten();
    let binaries = directory.unwrap_or_else(|| paths::binaries(true));
    let archive = options.output.clone().unwrap_or_else(place);
    let digest = pack_from(&binaries, &archive, &options.name)?;
    options.push.as_ref().map_or(Ok(()), |to| to.push(&archive, &digest, options.insecure))
}

/// Where the archive is unless told otherwise.
pub(crate) fn place() -> PathBuf {
    paths::root().join("target").join(ARCHIVE)
}

/// Packs the binaries that are there.
pub(crate) fn pack(output: &Path, name: &str) -> Result<()> {
    pack_from(&paths::binaries(true), output, name).map(drop)
}

/// Packs the binaries of a directory, and returns the digest of the image.
fn pack_from(binaries: &Path, output: &Path, name: &str) -> Result<String> {
    let layer = archive::layer(&content::files(binaries)?)?;
    let config = Blob::json(&config(&layer.diff_id))?;
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.blob.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    }))?;
    let size = layer.blob.len();
    let digest = manifest.digest();
    let layout = Layout { name, manifest, blobs: vec![config, layer.blob] };
    layout.write(output).with_context(|| format!("write {}", output.display()))?;
    println!(
        "{}: {}, {:.1} MiB compressed\n{digest}\nLoad it: ctr --namespace k8s.io images import {0}, or podman load --input {0}",
        output.display(),
        name,
        size as f64 / f64::from(1 << 20),
    );
    Ok(digest)
}

/// What runs, and what describes it (OCI image specification 1.1, annotations).
fn config(diff_id: &str) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/podwire-agent"],
            "Cmd": ["run", "--kubernetes"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "Labels": {
                "org.opencontainers.image.title": "podwire",
                "org.opencontainers.image.description": "Pod network by eBPF alone: agent and CNI plugin",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.revision": revision(),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    })
}

/// As Go and OCI call it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The commit; nothing outside a checkout.
fn revision() -> String {
    let mut git = std::process::Command::new("git");
    git.current_dir(paths::root()).args(["rev-parse", "HEAD"]);
    command::output(&mut git).map(|text| text.trim().to_owned()).unwrap_or_default()
}
