//! The command line of `podwire-agent`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use cni_shim::names::DEFAULT_SOCKET;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::doctor::{self, DoctorOptions};
use crate::output::{Output, print};
use crate::settings::Options;
use crate::uninstall::{UninstallOptions, uninstall};
use crate::{memory, run, status};

/// Podwire's agent: keeps the data plane of this node, and shows it.
#[derive(Debug, Parser)]
#[command(name = "podwire-agent", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent of this node until SIGTERM; pods keep their network afterwards
    Run(Box<Options>),
    /// Shows node, pods, peers, programs, counters and problems
    Status(StatusOptions),
    /// Checks whether this node can have pods, and says what to do: kernel, mounts, ports, what other networks
    /// have left, clock, agent. Takes the options of `run`, and changes nothing
    Doctor(Box<DoctorOptions>),
    /// Takes everything of Podwire off this node, with no agent and no API server
    Uninstall(UninstallOptions),
}

#[derive(Debug, clap::Args)]
struct StatusOptions {
    /// The agent's socket
    #[arg(long, env = "PODWIRE_SOCKET", value_name = "FILE", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// As tables, or as the whole document
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn execute(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(options) => run_agent(*options)?,
            Command::Status(options) => show(&options)?,
            Command::Doctor(options) => return check_up(*options),
            Command::Uninstall(options) => remove(&options)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn run_agent(options: Options) -> Result<()> {
    let settings = options.complete()?;
    start_log(&settings.log_level)?;
    memory::share_heap();
    // One thread, which a request does not leave: to wake another costs more than what it would do.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(run::run(settings))
}

/// What the programs of a debugging build call themselves in the log.
const PROGRAMS: &str = "podwire";

/// A plain level is meant for the agent, and for its programs, where they speak: its libraries stay silent unless
/// something is wrong.
fn start_log(level: &str) -> Result<()> {
    let filter = match level.parse::<LevelFilter>() {
        Ok(own) => {
            let (others, agent) = (own.min(LevelFilter::WARN), env!("CARGO_CRATE_NAME"));
            format!("{others},{agent}={own},{PROGRAMS}={own}")
        }
        Err(_) => level.to_owned(),
    };
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log-level {level}: use error, warn, info, debug or trace"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

fn show(options: &StatusOptions) -> Result<()> {
    let document = status::ask(&options.socket)?;
    let text = match options.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&document)?),
        Output::Table => {
            let status = serde_json::from_value(document)
                .context("the agent is of another version: use --output json")?;
            status::render(&status)
        }
    };
    print(&mut std::io::stdout().lock(), &text).context("cannot print the status")
}

fn remove(options: &UninstallOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    Ok(runtime.block_on(uninstall(options, &mut io::stdout()))?)
}

fn check_up(options: DoctorOptions) -> Result<ExitCode> {
    let (text, code) = doctor::run(options)?;
    print(&mut std::io::stdout().lock(), &text).context("cannot print the findings")?;
    Ok(code.into())
}
