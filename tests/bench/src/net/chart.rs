//! Charts: how many times as good as the yardstick each contender is.

use std::path::Path as File;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use tests::ratio::Ratio;

use super::figures::Figures;
use super::metric::{Better, Metric};
use super::way::{Contender, Family, Label, Path};

/// What a chart shows of a way.
const SHOWN: [Metric; 6] = [
    Metric::Tcp1,
    Metric::Tcp1Auto,
    Metric::TripTcpP50,
    Metric::Connections,
    Metric::Udp64,
    Metric::Iperf1Cpu,
];

const WIDTH: i32 = 860;
/// Where bars begin and end, and how far a ratio reaches.
const LEFT: i32 = 290;
const RIGHT: i32 = 780;
const TOP: i32 = 60;
const BAR: i32 = 16;
const GAP: i32 = 14;

/// A bar.
struct Bar {
    contender: Contender,
    /// How many times as good as the yardstick, with its interval.
    times: Ratio,
}

/// Draws a way; nothing where nobody was compared with the yardstick.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn draw(figures: &Figures, path: Path, family: Family, file: &File) -> Result<bool> {
    let groups: Vec<(Metric, Vec<Bar>)> = SHOWN
        .into_iter()
        .map(|metric| (metric, bars(figures, path, family, metric)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if groups.is_empty() {
        return Ok(false);
    }
    let rows: i32 = groups.iter().map(|(_, bars)| bars.len() as i32 * BAR + GAP).sum();
    let size = (WIDTH as u32, (TOP + rows + 30) as u32);
    let title =
        format!("{}, {}: times as good as {}", path.name(), family.name(), path.yardstick().name());
    render(file, size, &title, &groups).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    Ok(true)
}

fn bars(figures: &Figures, path: Path, family: Family, metric: Metric) -> Vec<Bar> {
    let yardstick = path.yardstick();
    let labels = figures.labels().filter(|label| {
        (label.path, label.family) == (path, family) && label.contender != yardstick
    });
    let bar = |label: Label| {
        let ratio = figures.ratio(label, yardstick, metric)?;
        Some(Bar { contender: label.contender, times: times_as_good(metric, ratio) })
    };
    labels.filter_map(bar).collect()
}

/// Half the time is twice as good.
fn times_as_good(metric: Metric, ratio: Ratio) -> Ratio {
    match metric.better() {
        Better::More => ratio,
        Better::Less => {
            Ratio { median: 1.0 / ratio.median, least: 1.0 / ratio.most, most: 1.0 / ratio.least }
        }
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn render(file: &File, size: (u32, u32), title: &str, groups: &[(Metric, Vec<Bar>)]) -> Drawn {
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE)?;
    let font = |height: i32| ("sans-serif", height).into_font();
    root.draw(&Text::new(title.to_owned(), (20, 18), font(18)))?;
    let most =
        groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.times.most).fold(1.2, f64::max);
    let x = |times: f64| LEFT + (f64::from(RIGHT - LEFT) * times / most) as i32;
    let bottom = size.1 as i32 - 20;
    let mut y = TOP;
    for (metric, bars) in groups {
        root.draw(&Text::new(metric.name(), (20, y), font(13)))?;
        for bar in bars {
            let Bar { contender, times } = bar;
            let color = if contender.is_podwire() {
                RGBColor(0, 110, 190)
            } else {
                RGBColor(190, 195, 200)
            };
            let edge = y + BAR - 4;
            root.draw(&Rectangle::new([(LEFT, y), (x(times.median), edge)], color.filled()))?;
            let middle = y + (BAR - 4) / 2;
            let whisker = vec![(x(times.least), middle), (x(times.most), middle)];
            root.draw(&PathElement::new(whisker, BLACK.stroke_width(1)))?;
            let text = format!("{:.2} {}", times.median, contender.name());
            root.draw(&Text::new(text, (x(times.most.max(times.median)) + 6, y), font(12)))?;
            y += BAR;
        }
        y += GAP;
    }
    let line = vec![(x(1.0), TOP - 10), (x(1.0), bottom)];
    root.draw(&PathElement::new(line, RED.stroke_width(1)))?;
    root.draw(&Text::new("1: as good; thin lines: 95 %", (x(1.0) + 4, bottom), font(11)))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests_of_charts {
    use super::*;

    #[test]
    fn half_the_time_is_twice_as_good() {
        let ratio = Ratio { median: 0.5, least: 0.4, most: 0.8 };
        let times = times_as_good(Metric::TripTcpP50, ratio);
        assert_eq!(times, Ratio { median: 2.0, least: 1.25, most: 2.5 });
        assert_eq!(times_as_good(Metric::Tcp1, ratio), ratio);
    }

    #[test]
    fn a_chart_names_who_is_compared() {
        let mut figures = Figures::default();
        for (contender, value) in [(Contender::Bare, 10.0), (Contender::Podwire, 9.5)] {
            let label = Label { path: Path::SameNode, family: Family::Ipv4, contender };
            figures.add(label, Metric::Tcp1, value);
        }
        let file = std::env::temp_dir().join(format!("chart-{}.svg", std::process::id()));
        assert!(draw(&figures, Path::SameNode, Family::Ipv4, &file).unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(text.contains("0.95 Podwire") && text.contains("bare veth pair"), "{text}");
        assert!(!draw(&figures, Path::World, Family::Ipv4, &file).unwrap());
    }
}
