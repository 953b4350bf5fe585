//! The container image: an OCI archive, made without a daemon and without a registry.
//!
//! Two builds of the same sources on the same system give the same bytes: nothing in it has a time or an owner
//! of the machine, and files are in order.

mod archive;
mod content;
mod distribution;
mod push;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use self::archive::{Image, Layout};
use self::push::Destination;
use crate::platform::Platform;
use crate::{build, command, ebpf, paths, set_up};

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
    /// For which machines; more than one makes one image for all of them [default: this machine's]
    #[arg(
        long,
        value_name = "PLATFORM",
        value_enum,
        value_delimiter = ',',
        hide_default_value = true
    )]
    platform: Vec<Platform>,
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
    let sources = sources(options)?;
    let archive = options.output.clone().unwrap_or_else(place);
    let digest = pack_all(&sources, &archive, &options.name)?;
    options.push.as_ref().map_or(Ok(()), |to| to.push(&archive, &digest, options.insecure))
}

/// Where the archive is unless told otherwise.
pub(crate) fn place() -> PathBuf {
    paths::root().join("target").join(ARCHIVE)
}

/// Packs the binaries for this machine that are there.
pub(crate) fn pack(output: &Path, name: &str) -> Result<()> {
    pack_all(&[(Platform::host(), paths::binaries(true))], output, name).map(drop)
}

/// Platforms, and where the binaries for each are; builds what is to be built.
fn sources(options: &Options) -> Result<Vec<(Platform, PathBuf)>> {
    let mut platforms = options.platform.clone();
    platforms.sort();
    platforms.dedup();
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    if let Some(Some(directory)) = &options.built {
        let [platform] = platforms[..] else {
            bail!("--built=DIRECTORY has the binaries of one platform: name one --platform")
        };
        return Ok(vec![(platform, directory.clone())]);
    }
    let source = |platform| {
        let is_host = platform == Platform::host();
        if options.built.is_none() && is_host {
            build::run(&build::Options::release())?;
        } else if options.built.is_none() {
            set_up::run(set_up::Scope::Build)?;
            ebpf::build(&ebpf::Options::default())?;
            build::cross::run(platform)?;
            content::fetch(platform)?;
        }
        let built = || build::cross::directory(platform);
        Ok((platform, if is_host { paths::binaries(true) } else { built() }))
    };
    platforms.into_iter().map(source).collect()
}

/// Packs the binaries of directories, and returns the digest of the image.
fn pack_all(sources: &[(Platform, PathBuf)], output: &Path, name: &str) -> Result<String> {
    let mut images = Vec::new();
    for (platform, binaries) in sources {
        let layer = archive::layer(&content::files(*platform, binaries)?)?;
        let config = config(*platform, &layer.diff_id);
        images.push(Image::new(platform.architecture(), &config, layer)?);
    }
    let sizes: Vec<String> = images
        .iter()
        .map(|image| {
            let size = image.len() as f64 / f64::from(1 << 20);
            format!("{} {size:.1} MiB compressed", image.architecture)
        })
        .collect();
    let layout = Layout::new(images)?;
    layout.write(name, output).with_context(|| format!("write {}", output.display()))?;
    let digest = layout.digest().to_owned();
    println!(
        "{}: {name}, {}\n{digest}\nLoad it: ctr --namespace k8s.io images import {0}, or podman load --input {0}",
        output.display(),
        sizes.join(", "),
    );
    Ok(digest)
}

/// What runs, and what describes it (OCI image specification 1.1, annotations).
fn config(platform: Platform, diff_id: &str) -> Value {
    json!({
        "architecture": platform.architecture(),
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

/// The commit; nothing outside a checkout.
fn revision() -> String {
    let mut git = std::process::Command::new("git");
    git.current_dir(paths::root()).args(["rev-parse", "HEAD"]);
    command::output(&mut git).map(|text| text.trim().to_owned()).unwrap_or_default()
}
