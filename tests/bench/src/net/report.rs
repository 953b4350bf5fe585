//! What is left of a run: `results.json`, `report.md`, charts.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path as File, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::report::Verdict;

use super::Options;
use super::chart;
use super::figures::Figures;
use super::headline;
use super::machine::Machine;
use super::table::tables;
use super::way::{Family, Path};
use crate::common::{self, Part};

const RESULTS: &str = "results.json";

/// All that is told about a run.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) figures: &'a Figures,
    pub(super) parts: &'a [Part],
    pub(super) machine: &'a Machine,
    pub(super) verdicts: &'a [Verdict],
}

/// How to read a cell of the tables.
pub(super) const LEGEND: &str = "medians; +: better than the first column, -: worse, with the ratio and its 95 % interval; =: no difference \
     beyond chance, with the interval";

impl Report<'_> {
    /// Writes everything into a directory.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(super) fn write(&self, directory: &File) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let file = |name: &str| directory.join(name);
        let charts = self.charts(directory)?;
        write(&file(RESULTS), &format!("{:#}\n", self.document()))?;
        write(&file("report.md"), &self.markdown(&charts)?)
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "date": jiff::Timestamp::now().to_string(),
            "machine": self.machine,
            "quick": self.options.quick,
            "only": self.options.only,
            "figures": self.figures.rows(),
            "compared": self.figures.compared,
            "verdicts": common::verdicts(self.verdicts),
        });
        for part in self.parts {
            document[part.name] = part.document.clone();
        }
        document
    }

    fn charts(&self, directory: &File) -> Result<Vec<String>> {
        let mut charts = Vec::new();
        for path in Path::ALL {
            for family in Family::ALL {
                let title = format!("{path:?}-{family:?}").to_lowercase();
                let name = format!("{title}.svg");
                if chart::draw(self.figures, path, family, &directory.join(&name))? {
                    charts.push(name);
                }
            }
        }
        Ok(charts)
    }

    fn markdown(&self, charts: &[String]) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "# Speed\n\n{}.\n", self.machine)?;
        if let Some(table) = headline::table(self.figures) {
            text += &table.markdown();
            writeln!(text, "\n{}", headline::LEGEND)?;
        }
        writeln!(text, "\n## What must hold\n")?;
        for verdict in self.verdicts {
            writeln!(text, "- {}: {}", verdict.word(), verdict.text)?;
        }
        for chart in charts {
            writeln!(text, "\n![{chart}]({chart})")?;
        }
        writeln!(text, "\nCells of the tables of ways: {LEGEND}.")?;
        for table in tables(self.figures) {
            text += &table.markdown();
        }
        for part in self.parts {
            text += &part.markdown();
        }
        Ok(text)
    }
}

fn write(file: &File, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// Figures of an earlier run.
///
/// # Errors
/// When the file is none of ours.
pub(super) fn read(file: &PathBuf) -> Result<Figures> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let document: Value = serde_json::from_str(&text)
        .with_context(|| format!("{}: not the {RESULTS} of a run", file.display()))?;
    Figures::from_document(&document["figures"], &document["compared"])
        .with_context(|| format!("{}: not the {RESULTS} of this version", file.display()))
}

#[cfg(test)]
mod tests_of_reports {
    use super::*;
    use crate::net::metric::Metric;
    use crate::net::way::{Contender, Label};

    #[test]
    fn a_report_can_be_read_again() {
        let mut figures = Figures::default();
        for contender in [Contender::Bare, Contender::Podwire] {
            let label = Label { path: Path::SameNode, family: Family::Ipv4, contender };
            figures.add(label, Metric::Tcp1, 1.25);
        }
        let machine = Machine {
            commit: "a".to_owned(),
            kernel: "k".to_owned(),
            processor: "p".to_owned(),
            processors: 2,
            memory_gib: 1,
            iperf3: "i".to_owned(),
            plugins: "c".to_owned(),
        };
        let options =
            Options { quick: true, only: Vec::new(), against: None, out: PathBuf::from(".") };
        let directory = std::env::temp_dir().join(format!("report-{}", std::process::id()));
        let report = Report {
            options: &options,
            figures: &figures,
            parts: &[],
            machine: &machine,
            verdicts: &[],
        };
        report.write(&directory).unwrap();
        assert_eq!(read(&directory.join(RESULTS)).unwrap(), figures);
        let text = fs::read_to_string(directory.join("report.md")).unwrap();
        assert!(
            text.contains("| TCP, 1 stream, Gbit/s | 1.25 | 1.25  = (1.00 to 1.00) |"),
            "{text}"
        );
        assert!(directory.join("samenode-ipv4.svg").exists());
        fs::remove_dir_all(&directory).unwrap();
        assert!(read(&directory.join(RESULTS)).is_err());
    }
}
