//! Builds everything.

use anyhow::{Context, Result};
use clap::Args;

use crate::{command, ebpf, paths, set_up};

/// Options of `build`.
#[derive(Args)]
pub(crate) struct Options {
    /// Builds optimised binaries
    #[arg(long)]
    release: bool,
}

/// Makes the machine ready and builds everything.
pub(crate) fn run(options: &Options) -> Result<()> {
    set_up::run(set_up::Scope::Build)?;
    ebpf::run(&ebpf::Options::default())?;
    binaries(options.release)
}

/// Builds the binaries of the workspace.
pub(crate) fn binaries(release: bool) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--workspace", "--exclude", "xtask", "--bins", "--locked"]);
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo).context("build the binaries")
}

/// Builds the plugin that kills itself, for the tests.
pub(crate) fn fault_plugin() -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "cni-shim", "--bin", "podwire-fault", "--locked"]);
    cargo.args(["--features", "fault-injection"]);
    command::run(&mut cargo).context("build the plugin that kills itself")
}

/// Returns a cargo command for the workspace.
pub(crate) fn cargo() -> std::process::Command {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(paths::root());
    cargo
}
