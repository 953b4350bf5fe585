//! How fast, beside what else there is, in the same run.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Verdict;
use super::latency;
use super::ratio::{Ratio, median};
use super::reference::{self, Pair};
use super::show::{self, progress, table};
use super::stage::Stage;
use crate::cluster::Mode;
use crate::command::{self, Process};
use crate::namespace::Namespace;
use crate::wait::wait_until;

/// The first round only warms up. Many short ones: a machine that shares its processors with others is
/// two to four times slower for seconds on end, and a round should see one speed.
const ROUNDS: usize = 41;
const ROUNDS_QUICK: usize = 6;
/// What a stream carries: some tenths of a second.
const STREAM: &str = "256M";
/// Bytes of one write. With iperf3's 128 KiB it decides how many packets there are whether the rest of a
/// write behind whole aggregates is longer than a segment: with an MTU of 1450 it is, with 1500 not.
const WRITE: &str = "1M";
const TRIPS: usize = 8_000;
const TRIPS_QUICK: usize = 3_000;
const SAME_NODE_TCP_MIN: f64 = 0.97;
const SAME_NODE_LATENCY_MAX: f64 = 1.03;
const DIRECT_TCP_MIN: f64 = 0.90;
const VXLAN_TCP_MIN: f64 = 1.0;
/// The kernel's default, whatever the machine has been set to: BBR paces by its estimates of rate and
/// shortest round trip, and then it is these that are measured.
const CONGESTION: &str = "cubic";
/// Mean sizes differ from run to run by less than this.
const PACKET_SIZE_MIN: f64 = 0.95;

/// A way that is measured.
struct Subject<'a> {
    name: &'static str,
    client: &'a Namespace,
    server: &'a Namespace,
    address: IpAddr,
    /// The machine whose `eth0` the packets leave by.
    uplink: Option<&'a Namespace>,
    _iperf: Process,
}

impl Subject<'_> {
    fn round_trips(&self, count: usize) -> Result<Vec<Duration>> {
        latency::round_trips(self.client, self.server, self.address, count)
    }
}

#[derive(Default)]
struct Figures {
    /// Gigabits per second of one TCP stream.
    tcp: Vec<f64>,
    /// Microseconds of a round trip, the median of many.
    latency: Vec<f64>,
    /// Bytes of the mean packet on the uplink.
    size: Vec<f64>,
}

/// Measures and shows the table.
pub(super) fn run(stage: &Stage, quick: bool) -> Result<Vec<Verdict>> {
    let (rounds, trips) = if quick { (ROUNDS_QUICK, TRIPS_QUICK) } else { (ROUNDS, TRIPS) };
    let run = stage.cluster.run();
    let bare = reference::veth_pair(run)?;
    let bridge = match stage.mode {
        Mode::Direct | Mode::Auto => None,
        Mode::Vxlan => Some(reference::bridge_and_vxlan(run, &stage.cluster.fabric)?),
    };
    let subjects = subjects(stage, &bare, bridge.as_ref())?;

    let mut figures: Vec<Figures> = subjects.iter().map(|_| Figures::default()).collect();
    let bar = progress("measurements", (rounds * subjects.len()) as u64);
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            bar.set_message(subjects[at].name);
            let (tcp, size) = throughput(&subjects[at])?;
            let trips = subjects[at].round_trips(trips)?;
            bar.inc(1);
            if round == 0 {
                continue;
            }
            figures[at].tcp.push(tcp);
            figures[at].latency.push(micros(trips[trips.len() / 2]));
            figures[at].size.extend(size);
        }
    }
    bar.finish_and_clear();
    show_figures(&subjects, &figures);
    Ok(judge(stage.mode, &figures))
}

/// In this order: bare veth pair, same node, host to host, other node, bridge with VXLAN.
fn subjects<'a>(
    stage: &'a Stage,
    bare: &'a Pair,
    bridge: Option<&'a Pair>,
) -> Result<Vec<Subject<'a>>> {
    let (nodes, pods) = (stage.cluster.nodes(), &stage.pods);
    let [one, two] = [&nodes[0], &nodes[1]];
    let uplink = Some(&one.namespace);
    let subject = |name, client, server, address, uplink| -> Result<Subject<'a>> {
        let _iperf = iperf_server(server)?;
        Ok(Subject { name, client, server, address, uplink, _iperf })
    };
    let mut subjects = vec![
        subject("bare veth pair", &bare.client, &bare.server, bare.address, None)?,
        subject(
            "pod to pod, same node",
            &pods[0].namespace,
            &pods[1].namespace,
            pods[1].addresses[0],
            None,
        )?,
        subject("host to host", &one.namespace, &two.namespace, two.addresses[0], uplink)?,
        subject(
            "pod to pod, other node",
            &pods[0].namespace,
            &pods[2].namespace,
            pods[2].addresses[0],
            uplink,
        )?,
    ];
    if let Some(bridge) = bridge {
        let machine = bridge.machine()?;
        let name = "Linux bridge and VXLAN";
        subjects.push(subject(
            name,
            &bridge.client,
            &bridge.server,
            bridge.address,
            Some(machine),
        )?);
    }
    Ok(subjects)
}

fn iperf_server(namespace: &Namespace) -> Result<Process> {
    let mut iperf = namespace.service("iperf3", true);
    iperf.args(["-s"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Process::new(iperf.spawn().context("start iperf3")?))
}

/// Gigabits per second of one stream, and the mean size of what the uplink sent meanwhile.
fn throughput(subject: &Subject<'_>) -> Result<(f64, Option<f64>)> {
    wait_until("iperf3's server", Duration::from_secs(10), || {
        let before = subject.uplink.map(sent).transpose()?;
        let mut iperf = subject.client.command("iperf3");
        iperf.args([
            "-J",
            "-n",
            STREAM,
            "-l",
            WRITE,
            "-C",
            CONGESTION,
            "-c",
            &subject.address.to_string(),
        ]);
        if let Some(processors) = two_processors() {
            iperf.args(["-A", processors]);
        }
        // It ends well, with a report about its failure.
        let report: Value = serde_json::from_str(&command::run(&mut iperf)?)?;
        let after = subject.uplink.map(sent).transpose()?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        let bits = bits.with_context(|| format!("no rate: {}", report["error"]))?;
        let size = before.zip(after).map(|(before, after)| {
            (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
        });
        Ok((bits / 1e9, size))
    })
}

/// Sender and receiver each have one, where there are two: else chance decides the rate.
fn two_processors() -> Option<&'static str> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors >= 2).then_some("0,1")
}

/// Bytes and packets that `eth0` has sent.
fn sent(namespace: &Namespace) -> Result<(u64, u64)> {
    let links: Value = serde_json::from_str(&namespace.run("ip -j -s link show eth0")?)?;
    let number = |what: &str| links[0]["stats64"]["tx"][what].as_u64().context("no statistics");
    Ok((number("bytes")?, number("packets")?))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn show_figures(subjects: &[Subject<'_>], figures: &[Figures]) {
    show::section("How fast (median, and range of all rounds)");
    let mut grid = table(&[
        "way",
        "TCP, Gbit/s",
        "ratio",
        "round trip p50, us",
        "ratio",
        "packet on uplink, bytes",
    ]);
    for (at, subject) in subjects.iter().enumerate() {
        let (own, base) = (&figures[at], yardstick(at).map(|base| &figures[base]));
        let against = |pick: fn(&Figures) -> &Vec<f64>| {
            base.map_or_else(
                || "1".to_owned(),
                |base| format!("{:.3}", Ratio::new(pick(own), pick(base)).median),
            )
        };
        grid.add_row(vec![
            subject.name.to_owned(),
            spread(&own.tcp, 2),
            against(|f| &f.tcp),
            spread(&own.latency, 1),
            against(|f| &f.latency),
            if own.size.is_empty() { String::new() } else { spread(&own.size, 0) },
        ]);
    }
    println!("{grid}");
    println!("Same node is compared with the bare veth pair, other ways with host to host.");
}

/// What a subject is compared with, by its place in [`subjects`].
fn yardstick(at: usize) -> Option<usize> {
    match at {
        1 => Some(0),
        3 | 4 => Some(2),
        _ => None,
    }
}

fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values))
}

fn judge(mode: Mode, figures: &[Figures]) -> Vec<Verdict> {
    let verdict = |what: String, ratio: Ratio, limit: &str, outcome| Verdict {
        text: format!("{}: {what}: {ratio}, {limit}", mode.name()),
        outcome,
    };
    let at_least = |what: String, ratio: Ratio, least: f64| {
        verdict(what, ratio, &format!("at least {least:.2}"), ratio.at_least(least))
    };
    let tcp = |of: usize, to: usize| Ratio::new(&figures[of].tcp, &figures[to].tcp);
    let trip = Ratio::new(&figures[1].latency, &figures[0].latency);
    let trip_limit = format!("at most {SAME_NODE_LATENCY_MAX:.2}");
    let trip_outcome = trip.at_most(SAME_NODE_LATENCY_MAX);
    let (other, base, least) = match mode {
        Mode::Direct | Mode::Auto => ("host to host", 2, DIRECT_TCP_MIN),
        Mode::Vxlan => ("Linux bridge and VXLAN", 4, VXLAN_TCP_MIN),
    };
    let size = Ratio::new(&figures[3].size, &figures[base].size);
    let bare = "on one node against a bare veth pair";
    vec![
        at_least(format!("TCP {bare}"), tcp(1, 0), SAME_NODE_TCP_MIN),
        verdict(format!("round trip {bare}"), trip, &trip_limit, trip_outcome),
        at_least(format!("TCP to another node against {other}"), tcp(3, base), least),
        at_least(format!("mean packet on the uplink against {other}"), size, PACKET_SIZE_MIN),
    ]
}
