//! Runs the demo and the benchmarks.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{build, ebpf, paths, set_up};

/// Name of the demo's binary.
pub(crate) const BINARY: &str = "podwire-demo";
/// Name of the benchmarks' binary.
const BENCH: &str = "podwire-bench";

/// Options of `demo` and `bench`, which read them themselves.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[cfg(test)]
impl Options {
    /// Returns what goes to the demo.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

/// Builds all that the demo needs, and becomes the demo.
pub(crate) fn run(options: &Options) -> Result<()> {
    become_program(BINARY, options)
}

/// Builds all that the benchmarks need, and becomes them.
pub(crate) fn bench(options: &Options) -> Result<()> {
    become_program(BENCH, options)
}

fn become_program(name: &str, options: &Options) -> Result<()> {
    set_up::run(set_up::Scope::Run)?;
    ebpf::build(&ebpf::Options::default())?;
    build::binaries(true)?;
    let binary = paths::binaries(true).join(name);
    if !binary.exists() {
        bail!("{} was not built", binary.display());
    }
    // Becoming it, instead of waiting for it, hands over signals and the exit code by themselves.
    let error = Command::new(&binary).args(&options.arguments).exec();
    Err(error).with_context(|| format!("start {}", binary.display()))
}
