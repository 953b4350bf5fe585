//! Runs the checks in a real Kubernetes cluster.

use std::{env, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::{build, ebpf, go, image, kubernetes, paths, set_up};

/// Name of the binary.
pub(crate) const BINARY: &str = "podwire-e2e";

/// Options of `e2e`: the program itself reads them.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// `--quick`, `--network bridge|podwire`, `--suite conformance`; `--help` for all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds all that a cluster needs, and becomes the program that starts it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let is_light = options.arguments.iter().any(|word| word == "--clean" || word == "--help");
    set_up::run(if is_light { set_up::Scope::Build } else { set_up::Scope::Kubernetes })?;
    if !is_light {
        kubernetes::build()?;
        go::build_renderer()?;
    }
    ebpf::build(&ebpf::Options::default())?;
    build::binaries(true)?;
    if !is_light {
        image::pack(&image::place(), &image::default_name())?;
    }
    let binary = paths::binaries(true).join(BINARY);
    // Becoming it, instead of waiting for it, hands over signals and the exit code by themselves.
    let error = Command::new(&binary)
        .args(&options.arguments)
        .env("PODWIRE_KUBERNETES", kubernetes::directory())
        .env("PODWIRE_IMAGE", image::place())
        .env("PODWIRE_GO_BIN", go::programs())
        .env("PODWIRE_XTASK", env::current_exe().context("find this program")?)
        .exec();
    Err(error).with_context(|| format!("start {}", binary.display()))
}
