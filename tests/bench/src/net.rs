//! Packets: how fast they go, beside what else there is.

mod against;
mod chart;
mod figures;
mod judge;
mod load;
mod machine;
mod metric;
mod report;
mod rounds;
mod scale;
mod stage;
mod table;
mod way;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tests::report::{section, verdicts};

use self::figures::Figures;
use self::load::Load;
use self::machine::Machine;
use self::report::{LEGEND, Report};
use self::rounds::{Plan, rounds};
use self::scale::Scale;
use self::stage::Stage;
use self::way::{Family, Path, Way};

/// Where a run leaves its report unless told otherwise.
const DIRECTORY: &str = "target/bench";

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// IPv4 and short turns alone: less than five minutes
    #[arg(long)]
    quick: bool,
    /// Measure these alone; can be repeated
    #[arg(long, value_enum, value_name = "WAY")]
    only: Vec<Path>,
    /// Compare with the results.json of an earlier run, and name what got worse
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Where report.md, results.json and the charts go
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    out: PathBuf,
}

const SHORT: Plan = Plan { loads: &Load::SHORT, rounds: 60, on_one_processor: true };
const LONG: Plan = Plan { loads: &Load::LONG, rounds: 5, on_one_processor: false };
const QUICK: Plan = Plan { rounds: 40, ..SHORT };

/// Measures, shows, judges; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let before = options.against.as_ref().map(report::read).transpose()?;
    let machine = Machine::here()?;
    println!("{machine}");
    let figures = measure(options)?;
    show(&figures);
    let mut all = judge::verdicts(&figures);
    all.extend(before.iter().flat_map(|before| against::verdicts(&figures, before)));
    let report = Report { figures: &figures, machine: &machine, verdicts: &all };
    report.write(&options.out)?;
    let code = verdicts(&all);
    println!("report, results and charts: {}", options.out.display());
    Ok(code)
}

fn measure(options: &Options) -> Result<Figures> {
    let wants = |path| options.only.is_empty() || options.only.contains(&path);
    let mut figures = Figures::default();
    let plans: &[Plan] = if options.quick { &[QUICK] } else { &[SHORT, LONG] };
    let of = |ways: &[Way]| -> Vec<Way> {
        let is_measured = |way: &&Way| {
            wants(way.label.path) && (!options.quick || way.label.family == Family::Ipv4)
        };
        ways.iter().filter(is_measured).cloned().collect()
    };
    if Path::ALL.into_iter().any(|path| wants(path) && !path.is_by_entries()) {
        let stage = Stage::new()?;
        for plan in plans {
            rounds("rounds", &of(stage.ways()), plan, &mut figures)?;
        }
        if !options.quick || !options.only.is_empty() {
            let wires = of(&stage.make_wires()?);
            for plan in plans {
                rounds("rounds, offloads off", &wires, plan, &mut figures)?;
            }
        }
    }
    let by_entries = Path::ALL.into_iter().any(|path| wants(path) && path.is_by_entries());
    if by_entries && (!options.quick || !options.only.is_empty()) {
        let scale = Scale::new()?;
        rounds("rounds by entries", &of(&scale.ways), &SHORT, &mut figures)?;
    }
    Ok(figures)
}

fn show(figures: &Figures) {
    println!("\nCells: {LEGEND}.");
    for part in table::tables(figures) {
        section(&part.title);
        let header: Vec<&str> = part.header.iter().map(String::as_str).collect();
        let mut grid = tests::report::table(&header);
        grid.add_rows(part.rows);
        println!("{grid}");
    }
}
