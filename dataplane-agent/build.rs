//! Finds the BPF object that `kernel::live` embeds.

use std::env;
use std::path::PathBuf;

/// Where `cargo xtask build-ebpf` leaves the object, below the workspace.
const OBJECT: &str = "target/bpf/podwire.o";

fn main() {
    println!("cargo::rerun-if-env-changed=PODWIRE_BPF_OBJECT");
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let object = env::var_os("PODWIRE_BPF_OBJECT")
        .map_or_else(|| manifest.join("..").join(OBJECT), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(object) => println!("cargo::rustc-env=PODWIRE_BPF_OBJECT_PATH={}", object.display()),
        Err(error) => println!(
            "cargo::error={}: {error}; run `cargo xtask build-ebpf` first, \
             or name an object in PODWIRE_BPF_OBJECT",
            object.display()
        ),
    }
}
