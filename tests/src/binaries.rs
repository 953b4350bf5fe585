//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// The agent: `PODWIRE_AGENT`, or `podwire-agent` beside this program.
///
/// # Errors
/// When it is not there.
pub fn agent() -> Result<PathBuf> {
    find("PODWIRE_AGENT", "podwire-agent", "")
}

/// The CNI plugin: `PODWIRE_PLUGIN`, or `podwire` beside this program.
///
/// # Errors
/// When it is not there.
pub fn plugin() -> Result<PathBuf> {
    find("PODWIRE_PLUGIN", "podwire", "")
}

/// The CNI plugin that kills itself: `PODWIRE_FAULT_PLUGIN`, or `podwire-fault` beside this program.
///
/// # Errors
/// When it is not there.
pub fn fault_plugin() -> Result<PathBuf> {
    let how = " -p cni-shim --features fault-injection";
    find("PODWIRE_FAULT_PLUGIN", "podwire-fault", how)
}

/// The work commands: `PODWIRE_XTASK`, or `xtask` beside this program.
///
/// # Errors
/// When it is not there.
pub fn xtask() -> Result<PathBuf> {
    find("PODWIRE_XTASK", "xtask", " --package xtask")
}

/// A program of `tests/go`: `PODWIRE_GO_BIN`, or `go/bin` beside this program's profile.
///
/// # Errors
/// When it is not there.
pub fn go(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("PODWIRE_GO_BIN") {
        Some(directory) => directory.into(),
        None => {
            let own = std::env::current_exe().context("find this program")?;
            own.ancestors().nth(3).context("target")?.join("go/bin")
        }
    };
    let path = directory.join(name);
    ensure!(path.exists(), "{} is missing: `cargo xtask build-go`", path.display());
    Ok(path)
}

/// The conformance kit: `CNI_CONFORMANCE`, or `cni-conformance` beside this program.
///
/// # Errors
/// When it is not there.
pub fn conformance_kit() -> Result<PathBuf> {
    find("CNI_CONFORMANCE", "cni-conformance", " --workspace")
}

fn find(variable: &str, name: &str, how: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("find this program")?;
    // Tests are in `target/debug/deps`, programs in `target/debug`.
    let found =
        own.ancestors().skip(1).take(2).map(|dir: &Path| dir.join(name)).find(|p| p.exists());
    match found {
        Some(path) => Ok(path),
        None => {
            bail!("{name} is not beside {}: `cargo build{how}`, or set {variable}", own.display())
        }
    }
}
