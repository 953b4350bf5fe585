//! The daemon and command line `podwire-agent`.

use std::process::ExitCode;

use clap::Parser as _;
use dataplane_agent::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podwire-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
