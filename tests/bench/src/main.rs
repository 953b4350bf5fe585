//! `podwire-bench`: how fast and how small, beside what else there is, in one run.

mod agent;
mod cni;
mod common;
mod crowd;
mod net;
mod programs;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::clean::{self, Which};
use tests::supervise;

/// Measures Podwire beside what else there is: without a command, how fast packets go.
///
/// Everything is made of network namespaces on this machine and removed at the end.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
#[group(id = "all")]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    net: net::Options,
    /// Be the process that does the work
    #[arg(long, hide = true, global = true)]
    worker: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// ADD and DEL of the CNI plugin beside those of the CNI project, and the memory of all parts
    Cni(common::Options),
    /// The agent's memory in a large cluster, and how soon it knows of changes
    Agent(common::Options),
    /// Time per packet of each BPF program, by the kernel's own test run
    Programs(common::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.worker {
        supervise::as_worker(|| work(&options))
    } else {
        clean::report(Which::Dead).and_then(|()| supervise::run())
    };
    result.map_or_else(
        |error| {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

fn work(options: &Options) -> Result<u8> {
    match &options.what {
        None => net::run(&options.net),
        Some(What::Cni(options)) => cni::run(options),
        Some(What::Agent(options)) => agent::run(options),
        Some(What::Programs(options)) => programs::run(options),
    }
}

#[cfg(test)]
mod tests_of_options {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        // The supervisor adds its word at the end.
        for line in [
            &["bench", "cni", "--quick", "--json", "x.json", "--worker"][..],
            &["bench", "--quick", "--against", "results.json", "--out", "x", "--worker"],
            &["bench", "agent", "--quick", "--worker"],
            &["bench", "programs", "--quick", "--json", "x.json", "--worker"],
            &["bench", "--worker"],
        ] {
            assert!(Options::try_parse_from(line).is_ok_and(|options| options.worker), "{line:?}");
        }
    }
}
