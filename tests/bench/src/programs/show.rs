//! The table for people, and the document for programs.

use serde_json::{Value, json};
use tests::ratio::median;
use tests::report::spread;

use super::case::{ROOM, ROUTE};
use super::{Figure, Manner, Size};
use crate::common::Table;

/// What each kind of packet takes.
pub(super) fn table_of(figures: &[Figure]) -> Table {
    let mut rows = Vec::new();
    let mut seen = None;
    for figure in figures {
        let Figure { program, what, traffic, .. } = *figure;
        if seen.replace((program, what, traffic)) == Some((program, what, traffic)) {
            continue;
        }
        let cell = |manner| {
            let is_same = |other: &&Figure| {
                (other.program, other.what, other.traffic, other.manner)
                    == (program, what, traffic, manner)
            };
            let found = figures.iter().find(is_same);
            found.map_or_else(|| "-".to_owned(), |figure| spread(&figure.rounds, 0))
        };
        let mut row = vec![program.to_owned(), what.to_owned(), traffic.to_owned()];
        row.extend(Manner::ALL.map(cell));
        rows.push(row);
    }
    let header = ["program", "packet", "", "in a row", "alone", "first of its flow"];
    Table {
        title: "Programs: nanoseconds per packet, beyond those of an empty program (median of rounds, and their range)"
            .to_owned(),
        header: header.map(str::to_owned).into(),
        rows,
    }
}

/// How to read the table.
pub(super) fn notes(figures: &[Figure]) -> Vec<String> {
    let mut notes = Vec::new();
    for manner in Manner::ALL {
        let of_manner = figures.iter().filter(|figure| figure.manner == manner);
        let empty: Vec<f64> = of_manner.map(|figure| median(&figure.empty)).collect();
        notes.push(format!("The empty program, {}: {} ns.", manner.name(), spread(&empty, 0)));
    }
    notes.extend([
        "-: a run would see what the one before has encapsulated, or there is nothing to remember."
            .to_owned(),
        format!(
            "{ROUTE}: the look-up of the way to a node, which is the kernel's part of packets to other nodes."
        ),
        format!("{ROOM}: room for outer headers, and headers in it: the kernel's part of VXLAN."),
    ]);
    notes
}

/// All figures.
pub(super) fn document(size: Size, figures: &[Figure]) -> Value {
    let figure = |figure: &Figure| {
        json!({
            "program": figure.program,
            "packet": figure.what,
            "traffic": figure.traffic,
            "manner": figure.manner.name(),
            "ns": { "p50": median(&figure.rounds), "rounds": figure.rounds },
            "empty_ns": { "p50": median(&figure.empty), "rounds": figure.empty },
        })
    };
    json!({
        "rounds": size.rounds,
        "packets_per_round": { "in_a_row": size.packets, "alone": size.alone },
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
    })
}
