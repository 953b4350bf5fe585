//! Makes a machine ready: checks it, and installs only what is missing.

mod linker;
mod machine;
mod musl;
mod packages;

pub(crate) use linker::{bpf_linker, bpf_linker_version};
pub(crate) use musl::musl_target;
pub(crate) use packages::{cross_compiler, pusher};

use anyhow::Result;

/// What the machine must be ready for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    /// Building; needs root only where something is missing.
    Build,
    /// Building, and running pods and nodes; needs root and a kernel that can run the programs.
    Run,
    /// All that tests need, container runtimes too.
    Test,
    /// A Kubernetes cluster on this machine, too.
    Kubernetes,
}

/// Makes the machine ready. Takes milliseconds where it already is.
pub(crate) fn run(scope: Scope) -> Result<()> {
    machine::check(scope)?;
    packages::install_missing(scope)?;
    linker::install_if_missing()?;
    musl::install_if_missing()?;
    if scope >= Scope::Run {
        machine::mount_bpffs()?;
    }
    Ok(())
}
