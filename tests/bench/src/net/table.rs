//! Figures as rows of cells, for the terminal and for the report.

use super::figures::Figures;
use super::metric::Metric;
use super::way::{Contender, Family, Label, Path};
use tests::ratio::{Ratio, median};

use crate::common::Table;

/// One for each path and family.
pub(super) fn tables(figures: &Figures) -> Vec<Table> {
    let paths = Path::ALL.into_iter();
    let both = paths.flat_map(|path| Family::ALL.into_iter().map(move |family| (path, family)));
    both.filter_map(|(path, family)| table(figures, path, family)).collect()
}

fn table(figures: &Figures, path: Path, family: Family) -> Option<Table> {
    let yardstick = path.yardstick();
    let mut contenders: Vec<Contender> = figures
        .labels()
        .filter(|label| (label.path, label.family) == (path, family))
        .map(|label| label.contender)
        .collect();
    contenders.sort_by_key(|contender| (*contender != yardstick, *contender));
    let header = contenders.iter().map(|contender| contender.name().to_owned());
    let header: Vec<String> = [String::new()].into_iter().chain(header).collect();
    let rows: Vec<Vec<String>> = Metric::ALL
        .into_iter()
        .filter_map(|metric| {
            let cells = contenders.iter().map(|contender| {
                cell(figures, Label { path, family, contender: *contender }, yardstick, metric)
            });
            let cells: Vec<String> = cells.collect();
            let is_measured = cells.iter().any(|cell| !cell.is_empty());
            is_measured.then(|| [metric.name().to_owned()].into_iter().chain(cells).collect())
        })
        .collect();
    let title = format!("{}, {}", path.name(), family.name());
    (!rows.is_empty()).then_some(Table { title, header, rows })
}

fn cell(figures: &Figures, label: Label, yardstick: Contender, metric: Metric) -> String {
    let Some(values) = figures.get(label, metric) else { return String::new() };
    let value = format!("{:.*}", metric.digits(), median(values));
    if label.contender == yardstick || !metric.is_compared() {
        return value;
    }
    let ratio = figures.ratio(label, yardstick, metric);
    ratio.map_or(value.clone(), |ratio| format!("{value}  {}", compared(metric, ratio)))
}

/// A ratio, unless what it says may be chance.
pub(super) fn compared(metric: Metric, ratio: Ratio) -> String {
    if metric.is_better(ratio) || metric.is_worse(ratio) {
        let word = if metric.is_better(ratio) { '+' } else { '-' };
        return format!("{word} x{:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most);
    }
    format!("= ({:.2} to {:.2})", ratio.least, ratio.most)
}

#[cfg(test)]
mod tests_of_tables {
    use super::*;

    #[test]
    fn what_may_be_chance_is_no_ratio() {
        let chance = Ratio { median: 1.05, least: 0.98, most: 1.1 };
        assert_eq!(compared(Metric::Tcp1, chance), "= (0.98 to 1.10)");
        let better = Ratio { median: 1.05, least: 1.01, most: 1.1 };
        assert_eq!(compared(Metric::Tcp1, better), "+ x1.05 (1.01 to 1.10)");
        assert_eq!(compared(Metric::TripTcpP50, better), "- x1.05 (1.01 to 1.10)");
    }

    #[test]
    fn the_yardstick_comes_first() {
        let mut figures = Figures::default();
        for contender in [Contender::Bridge, Contender::Podwire, Contender::Bare] {
            let label = Label { path: Path::SameNode, family: Family::Ipv6, contender };
            figures.add(label, Metric::Tcp1, 7.0);
        }
        let tables = tables(&figures);
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].header, ["", "bare veth pair", "bridge", "Podwire"]);
        assert_eq!(
            tables[0].rows,
            [["TCP, 1 stream, Gbit/s", "7.00", "7.00  = (1.00 to 1.00)", "7.00  = (1.00 to 1.00)"]]
        );
    }
}
