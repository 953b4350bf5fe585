//! Tables for people, and the document for programs.

use serde_json::{Value, json};
use tests::report::{Verdict, section, table};
use tests::series::Series;

use super::Results;
use super::figures::Figures;
use super::judge::ratio;
use super::rest;
use crate::common;

/// Prints all tables.
pub(super) fn tables(results: &Results) {
    let (some, many) = (results.size.some, results.size.many);
    contenders(
        "One at a time, no other pods (ms; ratio: times Podwire's)",
        results,
        &results.empty,
    );
    let title = format!("One at a time, beside {some} pods of the same plugin on the node");
    contenders(&title, results, &results.crowded);

    section(&format!("{} ADDs at the same time (ms)", results.size.crowd));
    let mut grid = table(&["plugin", "an ADD, p50", "p99", "all ADDs", "all DELs"]);
    for (name, crowd) in results.names.iter().zip(&results.crowd) {
        grid.add_row(vec![
            (*name).to_owned(),
            format!("{:.1}", crowd.each.p50()),
            format!("{:.1}", crowd.each.p99()),
            format!("{:.0}", crowd.all.p50()),
            format!("{:.0}", crowd.all_del.p50()),
        ]);
    }
    println!("{grid}");

    section("Podwire alone, by pods on the node (ms; ratio: times that of an empty node)");
    let mut grid =
        table(&["pods", "ADD p50", "p99", "ratio", "CHECK p50", "DEL p50", "p99", "ratio"]);
    for (count, own) in [0, some, many].iter().zip(&results.growth) {
        let none = &results.growth[0];
        grid.add_row(vec![
            count.to_string(),
            figure(own.add.p50()),
            figure(own.add.p99()),
            ratio(&own.add, &none.add).to_string(),
            figure(own.check.p50()),
            figure(own.del.p50()),
            figure(own.del.p99()),
            ratio(&own.del, &none.del).to_string(),
        ]);
    }
    println!("{grid}");
    kernel(results);
    if rest::missed() > 0 {
        println!("{} calls were measured on a machine that did not come to rest", rest::missed());
    }
    for (name, failures) in results.names.iter().zip(&results.failures).filter(|(_, n)| **n > 0) {
        println!("{name}: {failures} ADDs failed and were tried again");
    }
}

fn contenders(title: &str, results: &Results, figures: &[Figures]) {
    section(title);
    let mut grid = table(&[
        "plugin",
        "ADD p50",
        "p99",
        "range",
        "ratio",
        "cpu",
        "CHECK p50",
        "DEL p50",
        "p99",
        "range",
        "ratio",
        "cpu",
    ]);
    for (name, own) in results.names.iter().zip(figures) {
        let podwire = &figures[0];
        grid.add_row(vec![
            (*name).to_owned(),
            figure(own.add.p50()),
            figure(own.add.p99()),
            range(&own.add),
            ratio(&own.add, &podwire.add).to_string(),
            figure(own.add_cpu.p50()),
            figure(own.check.p50()),
            figure(own.del.p50()),
            figure(own.del.p99()),
            range(&own.del),
            ratio(&own.del, &podwire.del).to_string(),
            figure(own.del_cpu.p50()),
        ]);
    }
    println!("{grid}");
}

/// What the kernel takes anyway, beside the medians of Podwire in the same rounds.
fn kernel(results: &Results) {
    section("The same barely, without plugin and agent, in the rounds of the first table (ms)");
    let mut grid = table(&["what", "p50", "p99", "range"]);
    for (what, series) in results.bare.all() {
        let cells = [what.to_owned(), figure(series.p50()), figure(series.p99()), range(series)];
        grid.add_row(cells.to_vec());
    }
    println!("{grid}");
    let bare = &results.bare;
    if let Some(podwire) = results.empty.first() {
        let add = bare.make.p50() + bare.attach_expedited.p50();
        println!("Podwire has the kernel expedite grace periods; the other plugins do not.");
        println!(
            "Of Podwire's ADD the kernel's own (pair made, programs attached) is {:.0} %, of its DEL {:.0} %.",
            100.0 * add / podwire.add.p50(),
            100.0 * bare.remove_expedited.p50() / podwire.del.p50()
        );
    }
}

fn figure(value: f64) -> String {
    format!("{value:.2}")
}

fn range(series: &Series) -> String {
    let least = series.0.iter().copied().fold(f64::INFINITY, f64::min);
    let most = series.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.1} to {most:.1}")
}

/// All figures.
pub(super) fn document(results: &Results, verdicts: &[Verdict]) -> Value {
    let named = |figures: &[Figures]| -> Value {
        let all = results.names.iter().zip(figures);
        all.map(|(name, own)| ((*name).to_owned(), own.to_json())).collect()
    };
    let crowd: Value = results
        .names
        .iter()
        .zip(&results.crowd)
        .map(|(name, crowd)| {
            let figures = json!({
                "each_add_ms": crowd.each.to_json(),
                "all_adds_ms": crowd.all.to_json(),
                "all_dels_ms": crowd.all_del.to_json(),
            });
            ((*name).to_owned(), figures)
        })
        .collect();
    let size = results.size;
    json!({
        "pods": { "some": size.some, "many": size.many, "at_once": size.crowd },
        "no_pods": named(&results.empty),
        "some_pods": named(&results.crowded),
        "at_once": crowd,
        "podwire_by_pods": results.growth.iter().map(Figures::to_json).collect::<Vec<_>>(),
        "bare": results.bare.to_json(),
        "memory_bytes": {
            "agent_resident": results.memory.rss,
            "agent_anonymous": results.memory.anonymous,
            "plugin_file": results.memory.bytes,
            "plugin_is_static": results.memory.is_static,
            "plugin_peak": results.memory.peak,
        },
        "verdicts": common::verdicts(verdicts),
    })
}
