//! Builds the BPF object, when its sources changed, and reports what is in it.

mod names;
mod object_file;
mod stamp;
pub(crate) mod toolchain;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::toolchain::Toolchain;
use crate::{build, command, paths, set_up};

/// Options of `build-ebpf`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Compiles the log of the programs in (aya-log); slow, for debugging only
    #[arg(long)]
    debug_log: bool,
}

const TARGET: &str = "bpfel-unknown-none";
const STRIP: &str = "/usr/lib/llvm-22/bin/llvm-strip";

/// Flags for code that is small and fast. The defaults are the oldest instruction set (no 32-bit
/// arithmetic, no atomics that return a value) and a call in a loop for every `memset`.
const RUSTFLAGS: [&str; 5] = [
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];

/// Builds the object where it is not up to date, and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let object = build(options)?;
    print!("{}", object_file::Report::read(&object)?);
    Ok(())
}

/// Builds the object where it is not up to date, and returns its path.
pub(crate) fn build(options: &Options) -> Result<PathBuf> {
    let bpf = paths::bpf();
    fs::create_dir_all(&bpf).with_context(|| format!("create {}", bpf.display()))?;
    let lock = File::create(bpf.join("lock"))?;
    lock.lock().context("wait for another build of the BPF object")?;

    let toolchain = toolchain::find()?.context(
        "no Rust tool chain with the sources of `core` and LLVM 22 or older: run `cargo xtask set-up`",
    )?;
    let object = bpf.join("podwire.o");
    let stamp_file = bpf.join("podwire.stamp");
    let stamp = stamp::of(&paths::root(), &settings(&toolchain, options))?;
    let recorded = fs::read_to_string(&stamp_file).unwrap_or_default();
    if recorded == stamp && object.exists() {
        return Ok(object);
    }

    let built = compile(&toolchain, options)?;
    strip(&built, &object)?;
    fs::write(&stamp_file, stamp)?;
    Ok(object)
}

/// Returns the flags for the compiler. `aya-ebpf` wants to know for which machine the programs are.
fn rustflags() -> Vec<String> {
    let mut flags = RUSTFLAGS.map(str::to_owned).to_vec();
    flags.push(format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    flags
}

/// Returns everything but the sources that decides what the object is.
fn settings(toolchain: &Toolchain, options: &Options) -> Vec<String> {
    let mut settings = rustflags();
    settings.push(toolchain.version.clone());
    settings.push(format!("bpf-linker {}", set_up::bpf_linker_version()));
    settings.push(format!("debug-log {}", options.debug_log));
    settings.push(names::WRAPPER.to_owned());
    settings
}

fn compile(toolchain: &Toolchain, options: &Options) -> Result<PathBuf> {
    let package = paths::root().join("dataplane-ebpf");
    ensure!(package.join("Cargo.toml").exists(), "{} has no Cargo.toml", package.display());
    eprintln!("Building the BPF object with {toolchain}");
    let build = paths::bpf().join("build");
    let mut flags = rustflags();
    flags.push(format!("-Clinker={}", set_up::bpf_linker().display()));
    // Relative to where the linker runs: it reads the lines of source there that `bpftool` shows.
    flags.extend(paths::remapped(".."));

    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(&package)
        .args(["build", "-Zbuild-std=core", "--release", "--locked", "--target", TARGET])
        .args(["--bin", "podwire", "--target-dir"])
        .arg(&build)
        .env(build::RUSTFLAGS, flags.join(build::SEPARATOR));
    names::by_crate(&mut cargo, &paths::bpf())?;
    if options.debug_log {
        cargo.args(["--features", "debug-log"]);
    }
    command::run(&mut cargo).context("build the BPF object")?;
    Ok(build.join(TARGET).join("release/podwire"))
}

/// Writes the object without debug information. Types for the kernel (BTF) stay.
fn strip(built: &Path, object: &Path) -> Result<()> {
    let stripped = object.with_extension("new");
    let mut strip = Command::new(STRIP);
    command::run(strip.arg("--strip-debug").arg("-o").arg(&stripped).arg(built))
        .context("remove debug information (llvm-22 has llvm-strip)")?;
    object_file::check(&stripped)?;
    // The same bytes keep their time: the agent embeds them and would be built again.
    if fs::read(object).is_ok_and(|old| fs::read(&stripped).is_ok_and(|new| old == new)) {
        fs::remove_file(&stripped)?;
    } else {
        fs::rename(&stripped, object)?;
    }
    Ok(())
}
