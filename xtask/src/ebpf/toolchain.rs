//! Finds a Rust tool chain that can compile for the BPF target.
//!
//! `core` is compiled from its sources there, and the code generator must not be newer than the LLVM of
//! the BPF linker.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{command, paths};

/// Names a compiler to use, instead of searching for one.
const OVERRIDE: &str = "PODWIRE_BPF_RUSTC";
const DISTRIBUTION: &str = "/usr/bin/rustc";
/// Newest code generator whose output the BPF linker reads.
const LLVM_MAX: u32 = 22;

/// A tool chain that can compile for the BPF target.
pub(crate) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    release: (u32, u32, u32),
    llvm: u32,
    /// What `rustc -vV` prints.
    pub(crate) version: String,
}

impl Toolchain {
    /// Returns its cargo, ready for the BPF target.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = command::cargo(&self.cargo);
        // `build-std` looks for the sources beside the compiler that RUSTC names; the BPF target is
        // not a stable one, which RUSTC_BOOTSTRAP permits.
        cargo.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").env("RUSTC_WRAPPER", "");
        cargo
    }

    /// Reads a compiler; `None` if it lacks the sources of `core`.
    fn read(rustc: &Path) -> Result<Option<Self>> {
        let mut command = command::cargo(rustc);
        let sysroot = PathBuf::from(command::output(command.args(["--print", "sysroot"]))?);
        if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
            return Ok(None);
        }
        let version = command::output(command::cargo(rustc).arg("-vV"))?;
        let (release, llvm) =
            parse_version(&version).with_context(|| format!("read the version in `{version}`"))?;
        let own = rustc.with_file_name("cargo");
        let cargo = if own.exists() { own } else { cargo_of_workspace() };
        Ok(Some(Self { rustc: rustc.to_owned(), cargo, release, llvm, version }))
    }

    fn is_usable(&self) -> bool {
        self.llvm <= LLVM_MAX && self.release >= release_min()
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.rustc.display(), self.version.lines().next().unwrap_or_default())
    }
}

/// Finds the tool chain to use: the one that the environment names, the workspace's own, the newest of
/// rustup's, the distribution's.
pub(crate) fn find() -> Result<Option<Toolchain>> {
    if let Some(rustc) = env::var_os(OVERRIDE).map(PathBuf::from) {
        let context = || format!("{OVERRIDE}={}", rustc.display());
        let found = Toolchain::read(&rustc).with_context(context)?;
        let found =
            found.context("it has no sources of `core` (rust-src)").with_context(context)?;
        ensure!(
            found.is_usable(),
            "{OVERRIDE}={}: rustc {:?} or newer, with LLVM {LLVM_MAX} or older, is needed; this is {found}",
            rustc.display(),
            release_min(),
        );
        return Ok(Some(found));
    }
    let usable = |rustc: &Path| Toolchain::read(rustc).ok().flatten().filter(Toolchain::is_usable);
    let workspace = || {
        let rustc = rustc_of_workspace()?;
        usable(&rustc)
    };
    let rustup = || {
        let found = rustup_compilers();
        found.iter().filter_map(|rustc| usable(rustc)).max_by_key(|found| found.release)
    };
    Ok(workspace().or_else(rustup).or_else(|| usable(Path::new(DISTRIBUTION))))
}

/// Returns the compiler that builds the rest of the workspace, past rustup's proxy.
fn rustc_of_workspace() -> Option<PathBuf> {
    let mut rustc = command::cargo("rustc");
    rustc.current_dir(paths::root()).args(["--print", "sysroot"]);
    Some(PathBuf::from(command::output(&mut rustc).ok()?).join("bin/rustc"))
}

fn cargo_of_workspace() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Returns the compilers of rustup's tool chains that have the sources of `core`.
fn rustup_compilers() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".rustup")));
    let toolchains = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let compilers = toolchains.into_iter().flatten().flatten();
    compilers.map(|entry| entry.path().join("bin/rustc")).filter(|rustc| rustc.exists()).collect()
}

/// Returns the oldest Rust that the workspace builds with.
fn release_min() -> (u32, u32, u32) {
    parse_triple(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
}

/// Reads the release and the LLVM major version from what `rustc -vV` prints.
fn parse_version(text: &str) -> Option<((u32, u32, u32), u32)> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let release = parse_triple(field("release: ")?)?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

/// Reads `1.95`, `1.95.0` or `1.97.0-nightly`.
fn parse_triple(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_release_and_llvm() {
        let text = "rustc 1.96.0 (ac68 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8";
        assert_eq!(parse_version(text), Some(((1, 96, 0), 22)));
        let text = "rustc 1.99.0-nightly\nrelease: 1.99.0-nightly\nLLVM version: 23.0.0";
        assert_eq!(parse_version(text), Some(((1, 99, 0), 23)));
        assert_eq!(parse_version("no compiler"), None);
    }

    #[test]
    fn a_code_generator_newer_than_the_linker_is_refused() {
        let toolchain = |llvm, release| Toolchain {
            rustc: PathBuf::new(),
            cargo: PathBuf::new(),
            release,
            llvm,
            version: String::new(),
        };
        assert!(toolchain(22, (1, 95, 0)).is_usable());
        assert!(!toolchain(23, (1, 99, 0)).is_usable());
        assert!(!toolchain(19, (1, 85, 0)).is_usable());
    }
}
