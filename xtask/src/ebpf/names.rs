//! Names of symbols that do not hang on where the sources lie.
//!
//! Cargo puts a hash into them, and for a crate outside of the workspace's directory (`dataplane-core`, seen from
//! `dataplane-ebpf`) it takes the path into that. A wrapper of the compiler tells the crate's name in its place, so
//! that the same sources give the same object in every directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::paths;

/// Called as `wrapper rustc argument...`.
pub(super) const WRAPPER: &str = r#"#!/bin/sh
case $CARGO_MANIFEST_DIR/ in
    "$PODWIRE_SOURCES"/*) ;;
    *) exec "$@" ;;
esac
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    case $argument in metadata=*) argument=metadata=$CARGO_PKG_NAME ;; esac
    set -- "$@" "$argument"
    left=$((left - 1))
done
exec "$@"
"#;

/// Lets this cargo name symbols by the crates alone; the wrapper lies in `directory`.
pub(super) fn by_crate(cargo: &mut Command, directory: &Path) -> Result<()> {
    let wrapper = wrapper(directory).context("write the compiler's wrapper")?;
    cargo.env("RUSTC_WRAPPER", wrapper).env("PODWIRE_SOURCES", paths::root());
    Ok(())
}

/// Cargo builds anew when the wrapper has another time, so it is written only where it differs.
fn wrapper(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("rustc-wrapper");
    if fs::read_to_string(&path).is_ok_and(|text| text == WRAPPER) {
        return Ok(path);
    }
    let new = path.with_extension("new");
    fs::write(&new, WRAPPER)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn only_our_crates_are_told_another_hash() {
        let directory = std::env::temp_dir().join(format!("podwire-wrapper-{}", process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let wrapper = wrapper(&directory).expect("the wrapper");
        let told = |sources: &str| {
            let mut command = Command::new(&wrapper);
            command.args(["printf", "<%s>", "-C", "metadata=1f", "a b", "-Cextra-filename=-1f"]);
            command.env("PODWIRE_SOURCES", "/src/podwire").env("CARGO_MANIFEST_DIR", sources);
            command.env("CARGO_PKG_NAME", "dataplane-core");
            String::from_utf8(command.output().expect("the wrapper runs").stdout).expect("text")
        };
        let own = "<-C><metadata=dataplane-core><a b><-Cextra-filename=-1f>";
        let other = "<-C><metadata=1f><a b><-Cextra-filename=-1f>";
        assert_eq!(told("/src/podwire/dataplane-core"), own);
        assert_eq!(told("/src/podwire"), own);
        assert_eq!(told("/src/podwire2/core"), other);
        assert_eq!(told("/cargo/registry/src/aya"), other);
        fs::remove_dir_all(directory).expect("the directory is ours");
    }
}
