//! The daemon and command line `podwire-agent`.

use std::process::ExitCode;

use clap::Parser as _;
use dataplane_agent::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("podwire-agent: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, except those that it has told itself.
fn explain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
