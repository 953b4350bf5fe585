//! How fast, beside what else there is, in the same run.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::stage::Stage;
use crate::cluster::Mode;
use crate::conversation::{Conversation, Window};
use crate::namespace::Namespace;
use crate::processor::stay;
use crate::ratio::{Ratio, median};
use crate::reference::machine::{self, Kind};
use crate::reference::{self, Pair, least};
use crate::report::{Verdict, progress, section, spread, table};

/// In each of them every way has its turn.
const ROUNDS: usize = 400;
const ROUNDS_QUICK: usize = 60;
/// The first ones only warm up.
const WARM_UP: usize = 4;
/// What a stream carries in one turn: some hundredths of a second.
const STREAM: usize = 32 << 20;
/// Round trips of one turn.
const TRIPS: usize = 400;
const SAME_NODE_TCP_MIN: f64 = 0.97;
const SAME_NODE_LATENCY_MAX: f64 = 1.03;
/// Where a machine's kernel makes that impossible: against the least program that can deliver.
const LEAST_LATENCY_MAX: f64 = 1.01;
const DIRECT_TCP_MIN: f64 = 0.90;
const VXLAN_TCP_MIN: f64 = 1.0;
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
}

impl Subject<'_> {
    fn take_turn(&self) -> Result<Turn> {
        let mut conversation =
            Conversation::new(self.client, self.server, self.address, Window::Small)?;
        let trips = conversation.round_trips(TRIPS)?;
        let before = self.uplink.map(sent).transpose()?;
        let time = conversation.stream(STREAM)?;
        let after = self.uplink.map(sent).transpose()?;
        let size = before.zip(after).map(|(before, after)| {
            (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
        });
        Ok(Turn {
            tcp: STREAM as f64 * 8.0 / time.as_secs_f64() / 1e9,
            latency: median(&trips.into_iter().map(micros).collect::<Vec<_>>()),
            size,
        })
    }
}

/// What is measured in one turn; see [`Figures`].
struct Turn {
    tcp: f64,
    latency: f64,
    size: Option<f64>,
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
    let rounds = if quick { ROUNDS_QUICK } else { ROUNDS };
    let run = stage.cluster.run();
    let bare = reference::veth_pair(run)?;
    let (least, _programs) = least::pods(run)?;
    let bridge = match stage.mode {
        Mode::Direct | Mode::Auto => None,
        Mode::Vxlan => Some(machine::pair(run, &stage.cluster.fabric, Kind::BridgeVxlan)?),
    };
    let subjects = subjects(stage, &bare, &least, bridge.as_ref())?;
    let figures = thread::scope(|scope| {
        let figures = scope.spawn(|| stay().and_then(|()| take_turns(&subjects, rounds)));
        figures.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    show_figures(&subjects, &figures);
    Ok(judge(stage.mode, &figures))
}

fn take_turns(subjects: &[Subject<'_>], rounds: usize) -> Result<Vec<Figures>> {
    let mut figures: Vec<Figures> = subjects.iter().map(|_| Figures::default()).collect();
    let bar = progress("rounds of measurements", (WARM_UP + rounds) as u64);
    for round in 0..WARM_UP + rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let turn = subjects[at].take_turn().context(subjects[at].name)?;
            if round < WARM_UP {
                continue;
            }
            figures[at].tcp.push(turn.tcp);
            figures[at].latency.push(turn.latency);
            figures[at].size.extend(turn.size);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(figures)
}

/// In this order: bare veth pair, same node, host to host, other node, least program, bridge with VXLAN.
fn subjects<'a>(
    stage: &'a Stage,
    bare: &'a Pair,
    least: &'a Pair,
    bridge: Option<&'a Pair>,
) -> Result<Vec<Subject<'a>>> {
    let (nodes, pods) = (stage.cluster.nodes(), &stage.pods);
    let [one, two] = [&nodes[0], &nodes[1]];
    let uplink = Some(&one.namespace);
    let subject = |name, client, server, address, uplink| -> Subject<'a> {
        Subject { name, client, server, address, uplink }
    };
    let mut subjects = vec![
        subject("bare veth pair", &bare.client, &bare.server, bare.addresses[0], None),
        subject(
            "pod to pod, same node",
            &pods[0].namespace,
            &pods[1].namespace,
            pods[1].addresses[0],
            None,
        ),
        subject("host to host", &one.namespace, &two.namespace, two.addresses[0], uplink),
        subject(
            "pod to pod, other node",
            &pods[0].namespace,
            &pods[2].namespace,
            pods[2].addresses[0],
            uplink,
        ),
        subject("least program, same node", &least.client, &least.server, least.addresses[0], None),
    ];
    if let Some(bridge) = bridge {
        let machine = bridge.machines.first();
        let name = "Linux bridge and VXLAN";
        subjects.push(subject(name, &bridge.client, &bridge.server, bridge.addresses[0], machine));
    }
    Ok(subjects)
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
    section("How fast (median, and range of all rounds)");
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
        1 | 4 => Some(0),
        3 | 5 => Some(2),
        _ => None,
    }
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
    let trip = |to: usize| Ratio::new(&figures[1].latency, &figures[to].latency);
    let (trip, of_least) = (trip(0), trip(4));
    let trip_limit = format!(
        "at most {SAME_NODE_LATENCY_MAX:.2}, or {LEAST_LATENCY_MAX:.2} of the least program's, of which it is {of_least}"
    );
    let trip_outcome = trip.at_most(SAME_NODE_LATENCY_MAX).or(of_least.at_most(LEAST_LATENCY_MAX));
    let (other, base, least) = match mode {
        Mode::Direct | Mode::Auto => ("host to host", 2, DIRECT_TCP_MIN),
        Mode::Vxlan => ("Linux bridge and VXLAN", 5, VXLAN_TCP_MIN),
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
