//! The CNI plugin for tests of its death: as `podwire`, but it kills itself behind the step that
//! `PODWIRE_FAULT_KILL` names, one of those that `--fault-steps` prints.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_shim::plugin::run()
}
