//! The CNI plugin `podwire`: reads the environment and standard input, writes a result or an error.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_shim::plugin::run()
}
