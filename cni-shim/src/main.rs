//! The CNI plugin `podwire`: reads the environment and standard input, writes a result or an error.

use std::process::ExitCode;

/// musl's own heap asks the kernel for memory, and gives it back, at every turn.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    cni_shim::plugin::run()
}
