//! Where things lie in the workspace.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Returns the root of the workspace.
pub(crate) fn root() -> PathBuf {
    // At run time first: a target directory may be shared by several checkouts.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Flags for the compiler, so that what it makes does not say where sources lie on this machine: cargo's directory is
/// `/cargo`, the workspace as it is told.
pub(crate) fn remapped(workspace: &str) -> Vec<String> {
    let pairs = [(cargo_home(), "/cargo"), (Some(root()), workspace)];
    let flag = |(from, to): (Option<PathBuf>, &str)| {
        from.map(|from| format!("--remap-path-prefix={}={to}", from.display()))
    };
    pairs.into_iter().filter_map(flag).collect()
}

/// How sources would be named by what was compiled without [`remapped`].
pub(crate) fn of_sources() -> Vec<String> {
    let registry = cargo_home().map(|cargo| cargo.join("registry"));
    let own = ["dataplane-agent", "dataplane-core", "dataplane-ebpf", "cni-shim", "target"];
    let all = own.map(|name| root().join(name)).into_iter().chain(registry);
    all.map(|path| format!("{}/", path.display())).collect()
}

fn cargo_home() -> Option<PathBuf> {
    let told = env::var_os("CARGO_HOME").map(PathBuf::from);
    told.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// Returns the directory of the BPF object, the same whatever `CARGO_TARGET_DIR` says.
pub(crate) fn bpf() -> PathBuf {
    root().join("target/bpf")
}

/// Returns the directory with tools that are built and not installed on the machine.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Returns the directory of the Go programs, with all that Go keeps.
pub(crate) fn go() -> PathBuf {
    root().join("target/go")
}

/// Returns the directory with the built binaries of the workspace.
pub(crate) fn binaries(release: bool) -> PathBuf {
    profile(if release { "release" } else { "debug" })
}

/// Returns the directory of one of cargo's profiles.
pub(crate) fn profile(name: &str) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join(name)
}
