//! What a packet and a gigabyte take of the processor: on a machine whose wires are memory this says more than rates.
//!
//! In short turns one processor does the work of both ends and of all between, and has always some: the time that a
//! packet or a gigabyte takes is its processor time.

use tests::ratio::{Ratio, median};

use super::figures::Figures;
use super::metric::Metric;
use super::way::{Contender, Family, Label, Path};
use crate::common::Table;

/// How to read the table.
pub(super) const LEGEND: &str = "Processor time of both ends and of all between them, in short turns on one processor. Added: beyond the floor, which is \
     a bare veth pair on one node, and host to host between two; with the 95 % interval, and nothing where that contains 0.";

/// Those that have a floor, in the order of the report.
const PATHS: [Path; 5] =
    [Path::SameNode, Path::Direct, Path::DirectWire, Path::Vxlan, Path::VxlanWire];

const NS_PER_SECOND: f64 = 1e9;
const GIGABITS_PER_GIGABYTE: f64 = 8.0;

/// All ways of which there is something to tell.
pub(super) fn table(figures: &Figures) -> Option<Table> {
    let mut rows = Vec::new();
    for path in PATHS {
        for family in Family::ALL {
            let of_way = |label: &Label| (label.path, label.family) == (path, family);
            let mut labels: Vec<Label> = figures.labels().filter(of_way).collect();
            labels.sort_by_key(|label| (label.contender != floor(path), label.contender));
            rows.extend(labels.into_iter().filter_map(|label| row(figures, label)));
        }
    }
    let header =
        ["", "", "", "ns per packet (UDP of 64 B)", "added", "CPU s per GB (TCP, 1 stream)"];
    (!rows.is_empty()).then(|| Table {
        title: "Processor time per packet and per gigabyte".to_owned(),
        header: header.map(str::to_owned).into(),
        rows,
    })
}

/// What nobody can go below.
fn floor(path: Path) -> Contender {
    if path == Path::SameNode { Contender::Bare } else { Contender::Hosts }
}

fn row(figures: &Figures, label: Label) -> Option<Vec<String>> {
    let times = |label, metric, unit: f64| -> Option<Vec<f64>> {
        Some(figures.get(label, metric)?.iter().map(|rate| unit / rate).collect())
    };
    let packets = times(label, Metric::Udp64, NS_PER_SECOND)?;
    let of_floor = times(label.of(floor(label.path)), Metric::Udp64, NS_PER_SECOND);
    let is_floor = label.contender == floor(label.path);
    let of_floor = of_floor.filter(|of_floor| !is_floor && of_floor.len() == packets.len());
    let gigabytes = times(label, Metric::Tcp1, GIGABITS_PER_GIGABYTE);
    Some(vec![
        label.path.name().to_owned(),
        label.family.name().to_owned(),
        label.contender.name().to_owned(),
        format!("{:.0}", median(&packets)),
        of_floor.map_or_else(String::new, |of_floor| added(&packets, &of_floor)),
        gigabytes.map_or_else(String::new, |times| format!("{:.3}", median(&times))),
    ])
}

/// In the same rounds; not what may be chance.
fn added(packets: &[f64], of_floor: &[f64]) -> String {
    let more: Vec<f64> = packets.iter().zip(of_floor).map(|(own, floor)| own - floor).collect();
    let Ratio { median, least, most } = Ratio::of(&more);
    if least <= 0.0 && most >= 0.0 {
        return format!("= ({least:.0} to {most:.0})");
    }
    format!("{median:+.0} ({least:.0} to {most:.0})")
}

#[cfg(test)]
mod tests_of_headlines {
    use super::*;

    #[test]
    fn what_is_added_is_beyond_the_floor() {
        let mut figures = Figures::default();
        for (contender, rate) in [(Contender::Hosts, 1e6), (Contender::Podwire, 0.8e6)] {
            let label = Label { path: Path::Vxlan, family: Family::Ipv4, contender };
            for _ in 0..9 {
                figures.add(label, Metric::Udp64, rate);
                figures.add(label, Metric::Tcp1, 16.0);
            }
        }
        let table = table(&figures).expect("rows");
        let cells: Vec<&[String]> = table.rows.iter().map(|row| &row[2..]).collect();
        assert_eq!(cells[0], ["host to host", "1000", "", "0.500"]);
        assert_eq!(cells[1], ["Podwire", "1250", "+250 (250 to 250)", "0.500"]);
    }

    #[test]
    fn what_may_be_chance_is_not_added() {
        let rounds = |values: [f64; 9]| values.map(|value| 1000.0 + value);
        let noise = [-3.0, 2.0, -1.0, 4.0, -2.0, 1.0, 3.0, -4.0, 0.0];
        assert_eq!(added(&rounds(noise), &rounds([0.0; 9])), "= (-4 to 4)");
    }
}
