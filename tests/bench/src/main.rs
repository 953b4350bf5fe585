//! `podwire-bench`: how fast and how small, beside what else there is, in one run.

mod cni;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::clean::{self, Which};
use tests::supervise;

/// Measures Podwire beside what else there is.
///
/// Everything is made of network namespaces on this machine and removed at the end.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    #[command(subcommand)]
    what: What,
    /// Be the process that does the work
    #[arg(long, hide = true, global = true)]
    worker: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// ADD and DEL of the CNI plugin beside those of the CNI project, and the memory of all parts
    Cni(cni::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.worker {
        work(&options)
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
        What::Cni(options) => cni::run(options),
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
        let line = ["bench", "cni", "--quick", "--json", "x.json", "--worker"];
        assert!(Options::try_parse_from(line).is_ok_and(|options| options.worker));
    }
}
