//! The check-up of a node, `podwire-agent doctor`: looks at everything that pods depend on, changes nothing, and
//! says what to do about what is wrong.
//!
//! Each room below looks at one subject. What is found there is plain data, and what is said of it is decided by
//! pure functions.

mod agent;
mod clock;
mod finding;
mod kernel;
mod leftovers;
mod mounts;
mod network;
mod node;
mod paths;
mod ports;
mod services;
mod sockets;

use std::io;

pub use self::finding::{Finding, Severity};
use self::node::Node;
use crate::output::Output;
use crate::settings::{Options, SettingsError, Surroundings};

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorOptions {
    #[command(flatten)]
    agent: Options,
    /// As a table, or as a list of {check, state, found, remedy}
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Ends with 2 when there are warnings, too
    #[arg(long)]
    strict: bool,
}

/// Why there is no check-up.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The options are wrong.
    #[error(transparent)]
    Options(#[from] SettingsError),
    /// The machine does not let it begin.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[from] io::Error),
    /// The findings cannot be written down.
    #[error("cannot write the findings as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Looks, and returns what to print and the exit status: 1 with failures, else 0, or with `--strict` and warnings 2.
///
/// # Errors
/// When the options are wrong; whatever is wrong with the node is a finding.
pub fn run(options: DoctorOptions) -> Result<(String, u8), DoctorError> {
    let around = options.agent.surroundings()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(examine(around));
    let text = match options.output {
        Output::Table => finding::table(&findings),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&findings)?),
    };
    Ok((text, finding::exit_status(&findings, options.strict)))
}

/// All findings, by subject.
async fn examine(around: Surroundings) -> Vec<Finding> {
    let node = Node::look(around).await;
    let mut findings = kernel::examine(&node).await;
    findings.extend(mounts::examine(&node));
    findings.extend(network::examine(&node).await);
    findings.extend(paths::examine(&node));
    findings.extend(ports::examine(&node));
    findings.extend(leftovers::examine(&node).await);
    findings.extend(services::examine(&node));
    findings.extend(clock::examine());
    let known: Vec<String> = findings.iter().map(Finding::as_problem).collect();
    findings.extend(agent::examine(&node, &known));
    findings
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    const MANIFEST: &str = include_str!("../../deploy/podwire.yaml");

    /// Both containers of the DaemonSet, in their order.
    #[test]
    fn the_arguments_of_the_manifest_are_understood() {
        let mut commands = Vec::new();
        for part in MANIFEST.split("\n          args:").skip(1) {
            let lines = part.lines().skip(1).map_while(|line| line.strip_prefix("            - "));
            let words: Vec<&str> = ["podwire-agent"].into_iter().chain(lines).collect();
            Cli::try_parse_from(&words).unwrap();
            commands.push(words[1]);
        }
        assert_eq!(commands, ["doctor", "run"]);
    }
}
