//! The command line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use cni_conformance::known::Known;
use cni_conformance::namespace::{self, Namespace};
use cni_conformance::run::{Row, find_versions, run, warm_up};
use cni_conformance::setup::{self, Kind, Setup, VERSIONS};
use cni_conformance::{checks, delegate, interrupt, report};

/// Nothing unexpected is 0, something unexpected 1.
const CANNOT_RUN: u8 = 2;
const INTERRUPTED: u8 = 130;
/// Width of tables that go to no terminal.
const WIDTH: u16 = 140;

/// Runs every rule of the CNI specification that can be observed from outside on a plugin.
///
/// Exit status: 0 if all is as expected, 1 if a check fails or passes against expectation, 2 if the plugin
/// cannot be run here at all, 130 after SIGINT or SIGTERM.
#[derive(Parser)]
#[command(version, after_help = "Needs root, ip (iproute2) and /run/netns.")]
struct Arguments {
    /// The plugin's program
    #[arg(long, required_unless_present = "list")]
    plugin: Option<PathBuf>,
    /// The network configuration: of one plugin, or a list, of which the plugin's part is taken
    #[arg(long, required_unless_present = "list")]
    config: Option<PathBuf>,
    /// Where other plugins are (CNI_PATH); the plugin's own directory unless told otherwise
    #[arg(long)]
    cni_path: Option<String>,
    /// What the plugin is; found out from the configuration unless told otherwise
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Where the plugin runs
    #[arg(long, value_enum, default_value_t = Host::Own)]
    host: Host,
    /// Makes an interface of this name in the kit's own host namespace, for plugins that need one
    #[arg(long)]
    uplink: Option<String>,
    /// How many containers the network has addresses for: lets the kit look at what is released
    #[arg(long)]
    pool: Option<usize>,
    /// The newest version of the specification to use; the newest that plugin and kit have in common
    /// unless told otherwise
    #[arg(long, value_parser = VERSIONS)]
    cni_version: Option<String>,
    /// Known failures, with reasons (TOML); can be given again
    #[arg(long)]
    known: Vec<PathBuf>,
    /// Runs only this check; can be given again
    #[arg(long)]
    only: Vec<String>,
    /// Writes JUnit XML to this file
    #[arg(long)]
    junit: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Longest time of one call of the plugin, in seconds
    #[arg(long, default_value_t = 30)]
    limit: u64,
    /// Shows all checks and runs none
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Host {
    /// In a network namespace that the kit makes and removes
    Own,
    /// In the one in which the kit was started: for plugins that need a daemon or other set-up
    Current,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let stands_in = words.next().is_some_and(|word| word == delegate::ARGUMENT);
    let result = match words.next() {
        Some(directory) if stands_in => delegate::stand_in(Path::new(&directory)),
        _ => test(&Arguments::parse()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cni-conformance: {error:#}");
        ExitCode::from(if interrupt::requested() { INTERRUPTED } else { CANNOT_RUN })
    })
}

fn test(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        print!("{}", report::list(WIDTH));
        return Ok(ExitCode::SUCCESS);
    }
    let known = Known::read(&arguments.known)?;
    let only: BTreeSet<String> = arguments.only.iter().cloned().collect();
    for id in &only {
        ensure!(checks::all().any(|check| check.id == id), "there is no check {id:?}: see --list");
    }
    interrupt::listen()?;
    namespace::remove_of_dead()?;
    let setup = prepare(arguments)?;
    let rows = run(&setup, &known, &only);
    if interrupt::requested() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    print(arguments, &setup, &rows)?;
    let is_expected = rows.iter().all(|row| row.verdict.is_expected());
    Ok(if is_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prepare(arguments: &Arguments) -> Result<Setup> {
    let plugin = arguments.plugin.as_deref().context("--plugin")?;
    let plugin = plugin.canonicalize().with_context(|| plugin.display().to_string())?;
    let config = arguments.config.as_deref().context("--config")?;
    let name = config.display();
    let text = fs::read_to_string(config).with_context(|| name.to_string())?;
    let own = plugin.parent().unwrap_or(Path::new("/")).display().to_string();
    let cni_path = arguments.cni_path.clone().unwrap_or(own);
    let (plugin, before, found) =
        setup::read(&text, &plugin, &cni_path).with_context(|| name.to_string())?;
    let host = match arguments.host {
        Host::Own => Namespace::new().context("make a network namespace: are you root?")?,
        Host::Current => Namespace::Current,
    };
    if matches!(host, Namespace::Own(_)) {
        host.ip(&["link", "set", "lo", "up"])?;
    }
    if let Some(uplink) = &arguments.uplink {
        ensure!(matches!(host, Namespace::Own(_)), "--uplink is for --host own");
        host.ip(&["link", "add", uplink, "type", "veth", "peer", "name", "cnic-wire"])?;
        host.ip(&["link", "set", uplink, "up"])?;
        host.ip(&["link", "set", "cnic-wire", "up"])?;
    }
    let configured: serde_json::Value = serde_json::from_str(&text)?;
    let mut setup = Setup {
        kind: arguments.kind.or(found).unwrap_or(Kind::Interface),
        plugin,
        before,
        version: VERSIONS[VERSIONS.len() - 1],
        versions: Vec::new(),
        cni_path,
        pool: arguments.pool,
        limit: Duration::from_secs(arguments.limit),
        host,
        shared: BTreeSet::new(),
    };
    find_versions(&mut setup, configured["cniVersion"].as_str())?;
    if let Some(newest) = &arguments.cni_version {
        setup.limit_versions(newest)?;
    }
    warm_up(&mut setup)?;
    Ok(setup)
}

fn print(arguments: &Arguments, setup: &Setup, rows: &[Row]) -> Result<()> {
    if let Some(file) = &arguments.junit {
        let text = report::junit(setup, rows)?;
        fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    match arguments.output {
        Output::Table => print!("{}", report::table(setup, rows, WIDTH)),
        Output::Json => println!("{:#}", report::json(setup, rows)),
    }
    Ok(())
}
