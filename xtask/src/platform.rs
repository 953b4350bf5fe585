//! Kinds of machines that Podwire is built for.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::{command, paths};

/// A kind of machine, by the name that container images have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Platform {
    /// x86-64
    #[value(name = "linux/amd64", alias = "amd64")]
    Amd64,
    /// 64-bit Arm
    #[value(name = "linux/arm64", alias = "arm64")]
    Arm64,
}

impl Platform {
    /// This machine's.
    pub(crate) fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// As Go, OCI and Debian call it.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As the GNU tools call it.
    pub(crate) fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// As Rust calls it.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What links programs for it on another machine, and compiles their parts in C.
    pub(crate) fn cross_compiler(self) -> String {
        format!("{}-gcc", self.gnu())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture())
    }
}

/// Whether the workspace's tool chain has Rust's standard library for a target.
pub(crate) fn has_standard_library(target: &str) -> Result<bool> {
    let mut rustc = command::cargo("rustc");
    rustc.current_dir(paths::root()).args(["--print", "target-libdir", "--target", target]);
    Ok(PathBuf::from(command::output(&mut rustc)?).exists())
}
