//! How long pods take to start when many come at once, as the kubelet has it, beside the reference plugin.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::ratio::Ratio;
use harness::report::{Verdict, section, table};
use harness::wait::wait_until;

use super::Size;
use super::crowd::Crowd;
use super::histogram::Histogram;
use crate::cluster::Cluster;

/// The kubelet's own: the pod's sandbox, which is where its network is made; and its whole start, from when the
/// kubelet has seen it, and from when it was created.
const METRICS: [(&str, &str); 3] = [
    ("sandbox with network", "kubelet_run_podsandbox_duration_seconds"),
    ("start", "kubelet_pod_start_duration_seconds"),
    ("start since created", "kubelet_pod_start_sli_duration_seconds"),
];
/// One histogram for each.
type Observed = [Histogram; METRICS.len()];

const OBSERVED_TIME_MAX: Duration = Duration::from_secs(30);
/// Of the pods; one that is missing changes a mean by less than runs differ.
const OBSERVED_SHARE_MIN: f64 = 0.95;
/// Of ours to the reference plugin's.
const WANTED: f64 = 1.0;

/// What the kubelet observed of each time that the pods were made, in the order of [`METRICS`].
#[derive(Debug, Default)]
pub(super) struct Starts(Vec<Observed>);

impl Starts {
    fn total(&self, metric: usize) -> Histogram {
        let mut total = Histogram::default();
        for round in &self.0 {
            total.add(&round[metric]);
        }
        total
    }

    fn means(&self, metric: usize) -> Vec<f64> {
        self.0.iter().map(|round| round[metric].mean()).collect()
    }
}

/// Makes and removes pods on the first node, again and again.
pub(super) fn run(cluster: &Cluster, size: Size) -> Result<Starts> {
    let mut crowd = Crowd::new(cluster)?;
    let mut starts = Starts::default();
    for _ in 0..size.bursts {
        let before = observed(cluster)?;
        crowd.resize(size.burst)?;
        let round = observed_since(cluster, &before, size.burst)?;
        let figures: Vec<String> = METRICS
            .iter()
            .zip(&round)
            .map(|((what, _), h)| format!("{what} {:.2} s", h.mean()))
            .collect();
        eprintln!("  {} pods: mean {}", size.burst, figures.join(", "));
        starts.0.push(round);
        crowd.resize(0)?;
    }
    Ok(starts)
}

/// What came since then, once it is there of every pod: the kubelet counts some a moment after the pod is Ready. It
/// forgets one now and then (`kubelet_pod_start_sli_duration_seconds` had 109 of 110 half a minute later, v1.37.1), so
/// after a while those that are there are enough.
fn observed_since(cluster: &Cluster, before: &Observed, pods: usize) -> Result<Observed> {
    let with_at_least = |share: f64| {
        let mut all = observed(cluster)?;
        for ((histogram, before), (_, metric)) in all.iter_mut().zip(before).zip(METRICS) {
            *histogram = histogram.since(before);
            let count = histogram.count();
            ensure!(
                count >= pods as f64 * share,
                "{metric} has {count} observations of {pods} pods"
            );
        }
        Ok(all)
    };
    let every = || with_at_least(1.0);
    wait_until("the kubelet's metrics of all pods", OBSERVED_TIME_MAX, every)
        .or_else(|_| with_at_least(OBSERVED_SHARE_MIN))
}

fn observed(cluster: &Cluster) -> Result<Observed> {
    let node = &cluster.nodes[0].name;
    let page =
        cluster.control.kubectl.run(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics"))?;
    let mut all = METRICS.map(|_| Histogram::default());
    for (histogram, (_, name)) in all.iter_mut().zip(METRICS) {
        *histogram = Histogram::read(&page, name)?;
    }
    Ok(all)
}

/// Shows both, and judges.
pub(super) fn show(ours: &Starts, theirs: &Starts, size: Size) -> Vec<Verdict> {
    let rounds = ours.0.len();
    section(&format!(
        "Start of {} pods at once on one node, {rounds} times, by the kubelet's metrics, in seconds",
        size.burst
    ));
    let header =
        ["", "podwire mean", "p50", "p99", "bridge mean", "p50", "p99", "ours to bridge's"];
    let mut grid = table(&header);
    let mut verdicts = Vec::new();
    for (at, (what, metric)) in METRICS.iter().enumerate() {
        let ratio = Ratio::new(&ours.means(at), &theirs.means(at));
        let mut row = vec![(*what).to_owned()];
        for all in [ours.total(at), theirs.total(at)] {
            let figures = [all.mean(), all.quantile(0.5), all.quantile(0.99)];
            row.extend(figures.map(|figure| format!("{figure:.2}")));
        }
        row.push(ratio.to_string());
        grid.add_row(row);
        verdicts.push(Verdict {
            text: format!("{what} of {} pods at once ({metric}) to that of bridge: {ratio}, at most {WANTED:.2}", size.burst),
            outcome: ratio.at_most(WANTED),
        });
    }
    println!("{grid}");
    verdicts
}
