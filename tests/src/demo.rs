//! The demo: its command line, and the order of what it shows.

mod checks;
mod measure;
mod show;
mod stage;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::clean::{self, Which};
use crate::cluster::Mode;
use crate::{report, supervise};

/// Shows pods on three nodes that talk to each other, their nodes and the world, and how fast.
///
/// Everything is made of network namespaces on this machine and removed at the end.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo")]
struct Options {
    /// Leave everything up, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Only remove what earlier runs left, on purpose too
    #[arg(long)]
    clean: bool,
    /// Only remove what earlier runs left that were killed
    #[arg(long, hide = true)]
    clean_dead: bool,
    /// How packets reach other nodes
    #[arg(long, value_enum, default_value_t = Encapsulation::Both)]
    encapsulation: Encapsulation,
    /// Measure shorter
    #[arg(long)]
    quick: bool,
    /// Be the process that does the work
    #[arg(long, hide = true)]
    worker: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encapsulation {
    /// Plain
    Direct,
    /// Inside VXLAN
    Vxlan,
    /// One after the other
    Both,
}

impl Encapsulation {
    fn modes(self) -> Vec<Mode> {
        match self {
            Self::Direct => vec![Mode::Direct],
            Self::Vxlan => vec![Mode::Vxlan],
            Self::Both => Mode::ALL.to_vec(),
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.clean || options.clean_dead {
        clean::report(if options.clean { Which::DeadAndKept } else { Which::Dead }).map(|()| 0)
    } else if options.worker {
        supervise::as_worker(|| work(&options))
    } else {
        clean::report(Which::Dead).and_then(|()| supervise::run())
    };
    result.map_or_else(
        |error| {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

fn work(options: &Options) -> Result<u8> {
    let mut verdicts = Vec::new();
    for mode in options.encapsulation.modes() {
        report::heading(&format!("encapsulation {}", mode.name()));
        let stage = stage::Stage::new(mode, options.keep)?;
        show::picture(&stage);
        verdicts.extend(checks::run(&stage)?);
        verdicts.extend(measure::run(&stage, options.quick)?);
        show::map(&stage)?;
        show::counters(&stage)?;
        if options.keep {
            show::look_around(&stage);
        }
    }
    Ok(report::verdicts(&verdicts))
}
