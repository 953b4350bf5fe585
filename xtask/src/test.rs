//! Runs the tests of all tiers, and sums up.

mod leftovers;
mod summary;
mod tiers;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    process::{ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use self::{summary::Summary, tiers::TestBinary};
use crate::{build, ebpf, go, paths, set_up};

/// Options of `test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which tests to run
    #[arg(long, value_enum, default_value_t = Wanted::All)]
    tier: Wanted,
    /// Runs only tests whose names contain one of these
    filter: Vec<String>,
    /// Records how large the BPF programs are, in place of testing (dataplane-ebpf/budget.toml)
    #[arg(long, conflicts_with_all = ["tier", "filter"])]
    bless: bool,
}

/// The test that records in place of comparing where the variable is set (`tests/tests/prog/budget.rs`).
const BUDGETS: &str = "programs_keep_to_their_budgets";
const BLESS: &str = "PODWIRE_BLESS";

impl Options {
    /// Those that run what records.
    fn of_bless() -> Self {
        Self { tier: Wanted::Prog, filter: vec![BUDGETS.to_owned()], bless: true }
    }
}

/// Tiers that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Wanted {
    /// Each crate's own: decisions, models, formats, the edge to the kernel
    Core,
    /// Each program alone, by BPF_PROG_TEST_RUN
    Prog,
    /// Nodes and pods as network namespaces, with real sockets
    Net,
    /// The plugin in the hands of libcni, containerd and podman, and before other plugins
    Runtimes,
    /// Manifest, Helm chart and Kustomize base; the image in a registry
    Deploy,
    /// All of them
    All,
}

/// A tier of tests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Tier {
    Core,
    Prog,
    Net,
    Runtimes,
    Deploy,
}

impl Wanted {
    fn tiers(self) -> &'static [Tier] {
        match self {
            Self::Core => &[Tier::Core],
            Self::Prog => &[Tier::Prog],
            Self::Net => &[Tier::Net],
            Self::Runtimes => &[Tier::Runtimes],
            Self::Deploy => &[Tier::Deploy],
            Self::All => &[Tier::Core, Tier::Prog, Tier::Net, Tier::Runtimes, Tier::Deploy],
        }
    }
}

/// Longest time for one test binary: it ends what hangs. The longest takes 7 minutes on two processors that nobody
/// else uses.
const BINARY_TIME_MAX: Duration = Duration::from_secs(25 * 60);
/// How often a silent test binary is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Runs the tests. Whatever goes wrong beside a test (an empty tier, a skip that is not allowed, things
/// left behind) counts as one failure, so that the last line and the exit code agree.
pub(crate) fn run(options: &Options) -> ExitCode {
    let mut summary = Summary::default();
    let of_bless = Options::of_bless();
    let options = if options.bless { &of_bless } else { options };
    if let Err(error) = run_tiers(options, &mut summary) {
        summary.problem(format!("{error:#}"));
    }
    print!("{}", summary.report());
    if summary.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_tiers(options: &Options, summary: &mut Summary) -> Result<()> {
    let tiers = options.tier.tiers();
    set_up::run(set_up::Scope::Test)?;
    ebpf::build(&ebpf::Options::default())?;
    build::binaries(false)?;
    if tiers.contains(&Tier::Net) {
        build::fault_plugin()?;
    }
    if tiers.contains(&Tier::Runtimes) {
        go::build_callers()?;
    }
    if tiers.contains(&Tier::Deploy) {
        go::build_renderer()?;
        go::build_registry()?;
    }
    let binaries = tiers::build()?;
    leftovers::clean()?;
    // A demo that was left on purpose, or another run of tests.
    let of_others = leftovers::find();
    for path in &of_others {
        println!("in use, left alone: {}", path.display());
    }

    let mut tests = BTreeMap::new();
    for tier in tiers {
        for binary in binaries.iter().filter(|binary| binary.tier == *tier) {
            *tests.entry(tier).or_insert(0) += run_binary(binary, options, summary)?;
        }
    }
    if options.filter.is_empty() {
        for tier in tiers.iter().filter(|tier| tests.get(tier).is_none_or(|count| *count == 0)) {
            summary.problem(format!("tier {tier:?} has no tests"));
        }
    } else if tests.values().all(|count| *count == 0) {
        summary.problem(format!("no test's name contains {}", options.filter.join(" or ")));
    }

    let allowed = fs::read_to_string(paths::root().join("CONTRIBUTING.md")).unwrap_or_default();
    summary.refuse_skips(&summary::allowed_skips(&allowed));
    for path in leftovers::find().difference(&of_others) {
        summary.problem(format!("left behind: {}", path.display()));
    }
    leftovers::clean()
}

/// Runs one test binary, shows what it prints, and returns how many tests it has run or skipped.
fn run_binary(binary: &TestBinary, options: &Options, summary: &mut Summary) -> Result<u64> {
    println!("\n== {}", binary.name);
    let mut command = binary.command(&options.filter);
    if options.bless {
        command.env(BLESS, "1");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", binary.name))?;
    let lines = lines(child.stdout.take().context("output of a test")?);
    let deadline = Instant::now() + BINARY_TIME_MAX;
    let before = summary.total();
    let mut has_result = false;
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                println!("{line}");
                has_result |= summary.read(&binary.name, &line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            // A stray child may hold the output open.
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("{} took longer than {BINARY_TIME_MAX:?} and was ended", binary.name);
        }
    }
    let status = child.wait()?;
    if !has_result {
        summary.problem(format!("{} ended without a result ({status})", binary.name));
    } else if !status.success() && !summary.has_failures() {
        summary.problem(format!("{} failed without a failed test ({status})", binary.name));
    }
    Ok(summary.total() - before)
}

/// Returns the lines of an output, as they come.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}
