//! Where the programs of Kubernetes are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// `PODWIRE_KUBERNETES`, or `target/kubernetes` above this program: programs, sources, images.
pub(crate) fn directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("PODWIRE_KUBERNETES") {
        return Ok(directory.into());
    }
    let own = std::env::current_exe().context("find this program")?;
    let found = own.ancestors().map(|above| above.join("kubernetes")).find(|path| path.exists());
    found.with_context(|| format!("no directory `kubernetes` above {}: {HOW}", own.display()))
}

const HOW: &str = "`cargo xtask e2e` builds what is in it";

/// A program that is built.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let path = directory()?.join("bin").join(name);
    ensure!(path.exists(), "{} is missing: {HOW}", path.display());
    Ok(path)
}

/// A program of the distribution.
pub(crate) fn installed(name: &str) -> Result<PathBuf> {
    let directories = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let mut paths = directories.iter().map(|directory| Path::new(directory).join(name));
    paths
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not installed: `cargo xtask e2e` installs it"))
}
