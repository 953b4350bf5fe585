//! Rust's standard library for musl, with which the plugin is linked where it is there.

use std::process::Command;

use anyhow::Result;

use crate::platform::has_standard_library;
use crate::{command, paths};

/// This machine's, if the tool chain has its standard library.
pub(crate) fn musl_target() -> Result<Option<String>> {
    let target = target();
    Ok(has_standard_library(&target)?.then_some(target))
}

/// Has rustup add it. Without it all works, too, and each call of the plugin takes longer; so where that cannot be,
/// it is only said.
pub(super) fn install_if_missing() -> Result<()> {
    // Other tool chains have what their distribution gives them.
    if std::env::var_os("RUSTUP_TOOLCHAIN").is_none() || musl_target()?.is_some() {
        return Ok(());
    }
    let target = target();
    eprintln!("  adding the target {target} by rustup: the plugin starts faster with musl");
    let mut rustup = Command::new("rustup");
    rustup.current_dir(paths::root()).args(["target", "add", &target]);
    if let Err(error) = command::run(&mut rustup) {
        eprintln!("  without it the plugin is linked with glibc: {error:#}");
    }
    Ok(())
}

fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}
