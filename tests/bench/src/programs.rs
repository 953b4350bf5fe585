//! The BPF programs: time per packet, by the kernel's own test run (`BPF_PROG_TEST_RUN`), on a node whose maps its
//! agent has filled.
//!
//! A test run repeats a program on one and the same packet: a run finds what the one before has changed. So each
//! packet is run in the ways that still mean something ([`Manner`]):
//!
//! - *In a row*, many runs per call, with warm caches: as under load. Who writes nothing but MACs, and redirects, judges
//!   the same again and again, 10,000 times per call. Who spends a hop gets a packet with 255 of them and runs 250
//!   times. Who encapsulates would find its own outer headers, and is not run in a row.
//! - *Alone*, one run per call: caches and branch predictors are as a system call leaves them. More than in a row,
//!   as for a packet that comes by itself.
//! - *First*, alone, and the processor remembers nothing (`pw_known_nodes` and `pw_hops` are emptied before each run):
//!   the first packet of a flow, or any after a change of the maps.
//!
//! Each time is that of the program beyond an empty one, which has its turn before every call. Redirects are only asked
//! for: a test run sends nothing. What the kernel does with the packet afterwards is not in these figures, and what the
//! programs ask the kernel for (routes, headers) is; so the look-up of a route stands beside them.
//!
//! Tunnel metadata cannot be given to a test run. A small program in front of `pw_from_tunnel` sets the key of a packet
//! that goes the other way, which reads as that of an arrival, and goes on by a tail call; so does the one in front of
//! the empty program that is subtracted.

mod case;
mod judge;
mod rounds;
mod show;
mod stage;
mod yardstick;

use anyhow::Result;

use self::stage::Stage;
use crate::common::{Compared, Options, Part};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Rounds that count; one more warms up.
    pub(crate) rounds: usize,
    /// Packets of a kind per round, in a row.
    pub(crate) packets: u32,
    /// Packets of a kind per round, alone and first.
    pub(crate) alone: u32,
}

pub(crate) const FULL: Size = Size { rounds: 9, packets: 1_000_000, alone: 2_000 };
pub(crate) const QUICK: Size = Size { rounds: 5, packets: 100_000, alone: 500 };

/// How packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One after another.
    InARow,
    /// Each by itself.
    Alone,
    /// Each by itself, the first of its flow.
    First,
}

impl Manner {
    pub(crate) const ALL: [Self; 3] = [Self::InARow, Self::Alone, Self::First];

    /// For people and documents.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InARow => "in a row",
            Self::Alone => "alone",
            Self::First => "first of its flow",
        }
    }
}

/// What one kind of packet takes in one program.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) program: &'static str,
    /// Where the packet goes.
    pub(crate) what: &'static str,
    /// Family and protocol.
    pub(crate) traffic: &'static str,
    pub(crate) manner: Manner,
    /// Nanoseconds per packet beyond those of the empty program, one figure per round.
    pub(crate) rounds: Vec<f64>,
    /// Those of the empty program.
    pub(crate) empty: Vec<f64>,
}

impl Figure {
    /// In times of the empty program.
    fn compared(&self) -> Compared {
        let Self { program, what, traffic, manner, rounds, empty } = self;
        Compared {
            what: format!("{program}, {what} ({traffic}, {})", manner.name()),
            rounds: rounds.iter().zip(empty).map(|(time, empty)| (time + empty) / empty).collect(),
        }
    }
}

/// Measures, shows, judges; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    part(if options.quick { QUICK } else { FULL })?.finish(options)
}

/// Measures and judges.
///
/// # Errors
/// See [`measure`].
pub(crate) fn part(size: Size) -> Result<Part> {
    let figures = measure(size)?;
    Ok(Part {
        name: "programs",
        table: show::table_of(&figures),
        notes: show::notes(&figures),
        document: show::document(size, &figures),
        verdicts: judge::verdicts(&figures),
        compared: figures.iter().map(Figure::compared).collect(),
    })
}

/// Every program on every kind of packet, in every manner that it can be run in.
///
/// # Errors
/// When the nodes cannot be made, or a program does something else with a packet than it should.
fn measure(size: Size) -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let node = stage.cluster.node(1);
    node.namespace.enter(|| rounds::all(&stage, node, size))
}
