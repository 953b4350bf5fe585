//! Builds everything.

pub(crate) mod cross;

use std::fs;

use anyhow::{Context, Result};
use clap::Args;

use crate::{command, ebpf, paths, set_up};

/// Name of the agent.
pub(crate) const AGENT: &str = "podwire-agent";
/// Name of the CNI plugin.
pub(crate) const PLUGIN: &str = "podwire";
/// The profile of what users install.
const SHIPPED: &str = "shipped";

/// How what users install names the workspace.
pub(crate) const WORKSPACE: &str = "/podwire";
/// Flags for all that cargo compiles, and what separates them.
pub(crate) const RUSTFLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
pub(crate) const SEPARATOR: &str = "\u{1f}";

/// Options of `build`.
#[derive(Args)]
pub(crate) struct Options {
    /// Builds optimised binaries
    #[arg(long)]
    release: bool,
}

impl Options {
    /// As users install it.
    pub(crate) fn release() -> Self {
        Self { release: true }
    }
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
        cargo.args(["--exclude", "cni-shim", "--exclude", "dataplane-agent", "--release"]);
    }
    command::run(&mut cargo).context("build the binaries")?;
    if release { static_binaries() } else { Ok(()) }
}

/// The plugin hashes one short name. Learning how the processor does that best, which is CPUID, too, made 50 us of 15
/// (a trace of one call).
const PORTABLE_SHA2: &str = "--cfg=sha2_backend=\"soft\"";

/// Builds what users install: it needs no library of the host, takes less memory and starts faster for that.
///
/// glibc asks the processor 41 times what it is before the program begins (CPUID), which a virtual machine's
/// host answers, in 1 to 20 µs each; musl does not. And nine pages of the plugin hold nothing but addresses, which
/// need not be written into each new process if it is always at the same place. The plugin is a new process for
/// each call; the agent lives long, and glibc has the better heap.
fn static_binaries() -> Result<()> {
    static_binary("dataplane-agent", AGENT, None, &[], &[])?;
    let own = ["-Crelocation-model=static"];
    static_binary("cni-shim", PLUGIN, set_up::musl_target()?, &[PORTABLE_SHA2], &own)
}

/// Flags of its `own` are given for this one program alone. For all that cargo compiles, as `settings` are, they would
/// be given to macros and build scripts, too, which are libraries that the compiler loads.
fn static_binary(
    package: &str,
    name: &str,
    target: Option<String>,
    settings: &[&str],
    own: &[&str],
) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["rustc", "--package", package, "--bin", name, "--locked", "--profile", SHIPPED]);
    let mut all = paths::remapped(WORKSPACE);
    all.extend(settings.iter().copied().map(str::to_owned));
    cargo.env(RUSTFLAGS, all.join(SEPARATOR));
    let mut directory = SHIPPED.to_owned();
    if let Some(target) = target {
        directory = format!("{target}/{SHIPPED}");
        cargo.args(["--target", &target]);
    }
    cargo.args(["--", "-Ctarget-feature=+crt-static"]).args(own);
    command::run(&mut cargo).with_context(|| format!("build {name}"))?;
    let (built, place) = (paths::profile(&directory).join(name), paths::binaries(true).join(name));
    // Beside its place and renamed: the file that is there may run, or be cargo's own.
    let new = place.with_extension("new");
    fs::copy(&built, &new)
        .and_then(|_| fs::rename(&new, &place))
        .with_context(|| format!("put {} to {}", built.display(), place.display()))
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
