//! Builds agent and plugin for machines of another kind than this one.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{AGENT, PLUGIN, SHIPPED, WORKSPACE};
use crate::ebpf::toolchain::{self, Toolchain};
use crate::platform::{Platform, has_standard_library};
use crate::{command, paths, set_up};

/// Where the built programs are.
pub(crate) fn directory(platform: Platform) -> PathBuf {
    place().join(platform.target()).join(SHIPPED)
}

fn place() -> PathBuf {
    paths::root().join("target/cross")
}

/// Builds them as users install them. The BPF object is the same for all machines: the kernel translates it.
pub(crate) fn run(platform: Platform) -> Result<()> {
    let standard_library = StandardLibrary::find(platform)?;
    set_up::cross_compiler(platform)?;
    eprintln!("Building for {platform} with {standard_library}");
    let target = platform.target();
    let variable =
        |name| format!("CARGO_TARGET_{}_{name}", target.to_uppercase().replace('-', "_"));
    let mut cargo = standard_library.cargo("std,panic_unwind");
    cargo.current_dir(paths::root()).args(["build", "--locked", "--profile", SHIPPED]);
    cargo.args(["--package", "dataplane-agent", "--package", "cni-shim"]);
    cargo.args(["--bin", AGENT, "--bin", PLUGIN, "--target", target, "--target-dir"]).arg(place());
    cargo.env(variable("LINKER"), platform.cross_compiler());
    // With `--target` neither macros nor build scripts get it.
    let flags =
        [paths::remapped(WORKSPACE), vec!["-Ctarget-feature=+crt-static".to_owned()]].concat();
    cargo.env(variable("RUSTFLAGS"), flags.join(" "));
    command::run(&mut cargo).with_context(|| format!("build for {platform}"))
}

/// Where Rust's standard library for a target comes from.
enum StandardLibrary {
    /// The workspace's tool chain has it.
    Installed,
    /// This one has its sources.
    FromSource(Toolchain),
}

impl StandardLibrary {
    fn find(platform: Platform) -> Result<Self> {
        let target = platform.target();
        if has_standard_library(target)? {
            return Ok(Self::Installed);
        }
        let found = toolchain::find()?.with_context(|| {
            format!(
                "no Rust here has the standard library for {platform}: run `rustup target add {target}`, or \
                 `rustup component add rust-src`, with which it is compiled from its sources"
            )
        })?;
        Ok(Self::FromSource(found))
    }

    /// Returns a cargo command; these of the library's crates are what is needed of it.
    fn cargo(&self, crates: &str) -> Command {
        match self {
            Self::Installed => command::cargo("cargo"),
            Self::FromSource(toolchain) => {
                let mut cargo = toolchain.cargo();
                cargo.arg(format!("-Zbuild-std={crates}"));
                cargo
            }
        }
    }
}

impl fmt::Display for StandardLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("the workspace's tool chain"),
            Self::FromSource(toolchain) => write!(f, "{toolchain}, its standard library too"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes are asserted beside the types, and so whenever they are compiled.
    #[test]
    fn the_types_of_the_maps_are_the_same_on_machines_of_the_other_kind() {
        let other = match Platform::host() {
            Platform::Amd64 => Platform::Arm64,
            Platform::Arm64 => Platform::Amd64,
        };
        let library = StandardLibrary::find(other).expect("a standard library");
        let mut cargo = library.cargo("core");
        cargo.current_dir(paths::root()).args(["check", "--locked", "--quiet"]);
        cargo.args(["--package", "dataplane-core", "--target", other.target(), "--target-dir"]);
        command::output(cargo.arg(place())).unwrap_or_else(|error| panic!("{other}: {error:#}"));
    }
}
