//! The BPF linker, built once from crates.io against the distribution's LLVM.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command, paths, progress::Step};

/// Its LLVM must be at least as new as that of the compiler of the programs.
const VERSION: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Returns the path of the linker.
pub(crate) fn bpf_linker() -> PathBuf {
    paths::tools().join("bin/bpf-linker")
}

/// Returns what identifies the linker, for stamps.
pub(crate) fn bpf_linker_version() -> &'static str {
    VERSION
}

/// Builds the linker where it is not there in the wanted version.
pub(super) fn install_if_missing() -> Result<()> {
    if is_current(&bpf_linker()) {
        return Ok(());
    }
    eprintln!("  installing bpf-linker {VERSION} into target/tools: links the BPF programs");
    let mut step = Step::start(format!("building bpf-linker {VERSION} (about a minute)"));
    let tools = paths::tools();
    let build = tools.join("build");
    let mut cargo = command::cargo("cargo");
    // Not in the workspace: its configuration is none of the linker's business.
    cargo
        .current_dir("/")
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("LLVM_SYS_221_PREFIX", LLVM_PREFIX);
    if let Ok(channel) = channel() {
        cargo.env("RUSTUP_TOOLCHAIN", channel);
    }
    let note = |line: &str| {
        step.note(line);
        true
    };
    command::stream(&mut cargo, note).with_context(|| {
        format!("install bpf-linker {VERSION} from crates.io (is the network there?)")
    })?;
    step.done();
    fs::remove_dir_all(&build).context("remove the linker's build directory")
}

fn is_current(linker: &Path) -> bool {
    // It starts only if the LLVM it was built with is still there.
    linker.exists()
        && command::output(Command::new(linker).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().any(|word| word == VERSION))
}

/// Returns the tool chain that the workspace names.
fn channel() -> Result<String> {
    let text = fs::read_to_string(paths::root().join("rust-toolchain.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("channel = "));
    Ok(line.context("no channel in rust-toolchain.toml")?.trim_matches('"').to_owned())
}
