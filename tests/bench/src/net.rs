//! Packets: how fast they go, beside what else there is.

mod against;
mod chart;
mod figures;
mod headline;
mod judge;
mod large;
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
use tests::report::verdicts;

use self::figures::Figures;
use self::load::Load;
use self::machine::Machine;
use self::report::{LEGEND, Report};
use self::rounds::{Plan, rounds};
use self::scale::Scale;
use self::stage::Stage;
use self::way::{Family, Path, Way};
use crate::common::{Part, Table};
use crate::{agent, programs};

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

impl Options {
    fn wants(&self, path: Path) -> bool {
        self.only.is_empty() || self.only.contains(&path)
    }

    /// Whether the parts are measured that a quick run leaves out unless it is asked for them.
    fn has_time(&self) -> bool {
        !self.quick || !self.only.is_empty()
    }

    /// Whether it is a run that leaves nothing out.
    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty()
    }

    /// Those that are measured.
    fn of(&self, ways: &[Way]) -> Vec<Way> {
        let is_measured = |way: &&Way| {
            self.wants(way.label.path) && (!self.quick || way.label.family == Family::Ipv4)
        };
        ways.iter().filter(is_measured).cloned().collect()
    }
}

const SHORT: Plan =
    Plan { loads: &Load::SHORT, rounds: 44, is_first: true, on_one_processor: true };
const BY_ENTRIES: Plan = Plan { loads: &Load::BY_ENTRIES, rounds: 32, ..SHORT };
const COUNTED: Plan =
    Plan { loads: &Load::COUNTED, rounds: 10, is_first: false, on_one_processor: true };
const LONG: Plan = Plan { loads: &Load::LONG, rounds: 5, is_first: false, on_one_processor: false };
const QUICK: Plan = Plan { rounds: 40, ..SHORT };

/// Measures, shows, judges; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let before = options.against.as_ref().map(report::read).transpose()?;
    let machine = Machine::here()?;
    println!("{machine}");
    let mut figures = measure(options);
    let mut parts = parts(options, &mut figures);
    show(&figures, &parts);
    let mut all = judge::verdicts(&figures);
    all.extend(parts.iter_mut().flat_map(|part| part.verdicts.drain(..)));
    all.extend(before.iter().flat_map(|before| against::verdicts(&figures, before)));
    let report =
        Report { options, figures: &figures, parts: &parts, machine: &machine, verdicts: &all };
    report.write(&options.out)?;
    let code = verdicts(&all);
    println!("report, results and charts: {}", options.out.display());
    Ok(code)
}

/// What fails costs its own figures, not those of the others.
fn measure(options: &Options) -> Figures {
    let mut figures = Figures::default();
    for (what, measure) in [("ways", ways as Measure), ("by entries", by_entries)] {
        if let Err(error) = measure(options, &mut figures) {
            figures.failed(format!("{what}: {error:#}"));
        }
    }
    figures
}

/// What is measured beside the ways of packets; what fails is said in `figures`.
fn parts(options: &Options, figures: &mut Figures) -> Vec<Part> {
    if !options.is_whole() {
        return Vec::new();
    }
    let mut parts = Vec::new();
    for (what, part) in
        [("programs", programs::part(programs::FULL)), ("agent", agent::part(agent::SOME))]
    {
        match part {
            Ok(part) => {
                figures.compared.extend(part.compared.clone());
                parts.push(part);
            }
            Err(error) => figures.failed(format!("{what}: {error:#}")),
        }
    }
    parts
}

type Measure = fn(&Options, &mut Figures) -> Result<()>;

fn ways(options: &Options, figures: &mut Figures) -> Result<()> {
    if !Path::ALL.into_iter().any(|path| options.wants(path) && !path.is_by_entries()) {
        return Ok(());
    }
    let plans: &[Plan] = if options.quick { &[QUICK] } else { &[SHORT, COUNTED, LONG] };
    let stage = Stage::new()?;
    for plan in plans {
        rounds("rounds", &options.of(stage.ways()), plan, figures)?;
    }
    if options.has_time() {
        let wires = options.of(&stage.make_wires()?);
        for plan in plans {
            rounds("rounds, offloads off", &wires, plan, figures)?;
        }
    }
    Ok(())
}

fn by_entries(options: &Options, figures: &mut Figures) -> Result<()> {
    let is_wanted = Path::ALL.into_iter().any(|path| options.wants(path) && path.is_by_entries());
    if is_wanted && options.has_time() {
        let scale = Scale::new()?;
        rounds("rounds by entries", &options.of(scale.ways()), &BY_ENTRIES, figures)?;
    }
    Ok(())
}

fn show(figures: &Figures, parts: &[Part]) {
    println!("\nCells: {LEGEND}.");
    table::tables(figures).iter().for_each(Table::print);
    parts.iter().for_each(Part::print);
    if let Some(table) = headline::table(figures) {
        table.print();
        println!("{}", headline::LEGEND);
    }
}
