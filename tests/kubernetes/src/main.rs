//! Starts Kubernetes on this machine, and looks at pods in it.

use std::process::ExitCode;

fn main() -> ExitCode {
    podwire_e2e::main()
}
