//! Health and metrics, asked for with curl and read by Prometheus' own parser.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::{MONITOR_PORT, Node};
use tests::pod::Pod;
use tests::probe;
use tests::wait::wait_until;

use super::traces;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);
const DATAGRAMS: u64 = 7;
/// Ethernet, IPv4 and UDP headers, and one byte.
const DATAGRAM_BYTES: u64 = 14 + 20 + 8 + 1;
/// Nobody listens there.
const DEAD_PORT: u16 = 9;
/// Where VXLAN is received, unless told otherwise.
const VXLAN_PORT: u16 = 8472;
/// Of the node's pod network; nobody has it.
const UNKNOWN_POD: &str = "10.244.1.200";

/// The distribution's, which has the parser; another may come first in the path.
const PYTHON: &str = "/usr/bin/python3";
/// The strict parser of the Prometheus project: all samples, each with name, labels and value.
const PARSER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = text_string_to_metric_families(sys.stdin.read())
json.dump([[s.name, s.labels, s.value] for f in families for s in f.samples], sys.stdout)
";

type Labels<'a> = &'a [(&'a str, &'a str)];

#[test]
fn each_packet_is_counted_once_under_its_way_or_reason() {
    Cluster::builder(Mode::Direct).listening().test(|cluster| {
        let node = cluster.node(1);
        let (pod, remote) = (node.pod()?, cluster.node(2).pod()?);
        let rises = |to: &str, counter: &str, label: (&str, &str)| -> Result<()> {
            let named =
                |what: &str| value(node, &format!("podwire_{counter}_{what}_total"), &[label]);
            let (packets, bytes) = (named("packets")?, named("bytes")?);
            send(&pod, SocketAddr::new(to.parse()?, DEAD_PORT))?;
            wait_until(counter, SEEN_TIME_MAX, || {
                let (packets, bytes) = (named("packets")? - packets, named("bytes")? - bytes);
                ensure!(packets == DATAGRAMS as f64, "{packets} packets, not {DATAGRAMS}");
                ensure!(bytes == (DATAGRAMS * DATAGRAM_BYTES) as f64, "{bytes} bytes");
                Ok(())
            })
        };
        let remote = remote.addresses[0].to_string();
        rises(&remote, "forwarded", ("path", "pod_to_direct"))?;
        rises(UNKNOWN_POD, "dropped", ("reason", "unknown_pod"))
    });
}

#[test]
fn what_the_agent_knows_and_does_is_told() {
    Cluster::builder(Mode::Direct).listening().test(|cluster| {
        let node = cluster.node(1);
        let _pod = node.pod()?;
        node.namespace.ip("route delete 10.244.0.0/16 dev podwire0")?;
        let wanted: [(&str, Labels<'_>, f64); 11] = [
            ("podwire_ready", &[], 1.0),
            ("podwire_nodes", &[], 2.0),
            ("podwire_nodes_current", &[], 1.0),
            ("podwire_nodes_age_seconds", &[], 0.0),
            ("podwire_pods", &[], 1.0),
            ("podwire_problems", &[], 0.0),
            ("podwire_drift_total", &[("kind", "route")], 1.0),
            ("podwire_drift_total", &[("kind", "link")], 0.0),
            (
                "podwire_pool_free_addresses",
                &[("pool", "10.244.1.0/24"), ("family", "ipv4")],
                252.0,
            ),
            ("podwire_map_capacity_entries", &[("map", "pw_pods")], 16_384.0),
            ("podwire_cni_request_duration_seconds_count", &[("call", "add")], 1.0),
        ];
        wait_until("the metrics", SEEN_TIME_MAX, || {
            for (name, labels, wanted) in wanted {
                let value = value(node, name, labels)?;
                ensure!(value == wanted, "{name} {labels:?} is {value}, not {wanted}");
            }
            let entries = value(node, "podwire_map_entries", &[("map", "pw_pods")])?;
            let mut bpftool = Command::new("bpftool");
            bpftool.args(["-j", "map", "dump", "pinned"]).arg(node.bpffs.join("maps/pw_pods"));
            let dump: Value = serde_json::from_str(&command::run(&mut bpftool)?)?;
            let there = dump.as_array().context("entries")?.len();
            ensure!(entries == there as f64, "{entries} entries, bpftool shows {there}");
            Ok(())
        })
    });
}

#[test]
fn ready_is_who_would_serve_an_add() {
    Cluster::builder(Mode::Vxlan).nodes(1).listening().without_agents().test(|cluster| {
        let node = cluster.node(1);
        let other = node.namespace.enter(|| UdpSocket::bind(("0.0.0.0", VXLAN_PORT)))?;
        node.spawn_agent()?;
        said(node, 503, "another program has its UDP port")?;
        ensure!(ask(node, "healthz")?.0 == 200, "not ready is not dead");
        ensure!(value(node, "podwire_ready", &[])? == 0.0, "but ready in the metrics");
        drop(other);
        said(node, 200, "ok")?;
        node.wait_for_agent()
    });
}

#[test]
fn a_pool_that_is_used_up_is_not_ready() {
    Cluster::builder(Mode::Direct).nodes(1).listening().without_agents().test(|cluster| {
        traces::start_with_small_pool(cluster)?;
        let node = cluster.node(1);
        said(node, 200, "ok")?;
        let pods: Vec<Pod> = (0..traces::SMALL_POOL).map(|_| node.pod()).collect::<Result<_>>()?;
        said(node, 503, "10.244.1.0/29 are in use")?;
        let error = node.bare_pod()?.call("ADD")?.err().context("an address too many")?;
        ensure!(error["code"] == 50, "{error}");
        let labels = [("call", "add"), ("code", "50")];
        let failures = value(node, "podwire_cni_request_failures_total", &labels)?;
        ensure!(failures == 1.0, "{failures} failures");
        pods[0].delete()?;
        said(node, 200, "ok")
    });
}

#[test]
fn a_port_in_use_is_said_and_nothing_is_changed() {
    Cluster::builder(Mode::Direct).nodes(1).listening().without_agents().test(|cluster| {
        let node = cluster.node(1);
        let _other = node.namespace.enter(|| TcpListener::bind(("::", MONITOR_PORT)))?;
        let output = node.agent_command().output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "it started");
        for text in ["another program listens at [::]:9869", "ss -ltnp", "--listen"] {
            ensure!(error.contains(text), "{text} is not in {error}");
        }
        ensure!(!node.bpffs.exists(), "{} was made", node.bpffs.display());
        ensure!(!node.socket().exists(), "the socket is left");
        Ok(())
    });
}

/// What it costs to start `nft` is more than all the rest of a look.
#[test]
fn a_look_at_rules_that_nobody_has_changed_starts_no_process() {
    Cluster::builder(Mode::Direct).nodes(1).listening().test(|cluster| {
        let node = cluster.node(1);
        let looks = || value(node, "podwire_reconciliations_total", &[("result", "settled")]);
        let two_more = || {
            let before = looks()?;
            wait_until("two more looks", SEEN_TIME_MAX, || {
                ensure!(looks()? >= before + 2.0, "there were {before}, and are {}", looks()?);
                Ok(())
            })
        };
        two_more()?;
        let before = faults_of_children(node)?;
        ensure!(before > 0, "it has started none at all");
        two_more()?;
        let now = faults_of_children(node)?;
        ensure!(now == before, "processes were started: {before} and {now} page faults");
        node.namespace.run("nft add table inet another")?;
        wait_until("a look at the rules", SEEN_TIME_MAX, || {
            ensure!(faults_of_children(node)? > before, "no process was started");
            Ok(())
        })
    });
}

/// Page faults of processes that the agent has started and that have ended (proc_pid_stat(5), `cminflt`).
fn faults_of_children(node: &Node) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.agent_pid()?))?;
    let (_, behind_name) = stat.rsplit_once(')').context("a name")?;
    Ok(behind_name.split_whitespace().nth(8).context("cminflt")?.parse()?)
}

/// Waits for an answer of `/readyz`.
fn said(node: &Node, code: u16, text: &str) -> Result<()> {
    wait_until("readyz", SEEN_TIME_MAX, || {
        let (status, body) = ask(node, "readyz")?;
        ensure!(status == code && body.contains(text), "{status}: {body}");
        Ok(())
    })
}

fn send(pod: &Pod, to: SocketAddr) -> Result<()> {
    pod.namespace.enter(|| {
        let socket = probe::udp_socket(None, to.ip())?;
        (0..DATAGRAMS).try_for_each(|_| Ok(socket.send_to(b"x", to).map(drop)?))
    })
}

/// The value of one series.
fn value(node: &Node, name: &str, labels: Labels<'_>) -> Result<f64> {
    let (status, text) = ask(node, "metrics")?;
    ensure!(status == 200, "{status}: {text}");
    let mut python = Command::new(PYTHON);
    let output = command::feed(python.args(["-c", PARSER]), &text)?;
    let samples: Value = serde_json::from_str(&command::checked(&python, &output)?)?;
    let labels: Value = labels.iter().map(|(key, value)| (*key, Value::from(*value))).collect();
    let samples = samples.as_array().context("samples")?;
    let mut found = samples.iter().filter(|sample| sample[0] == name && sample[1] == labels);
    let value = found.next().and_then(|sample| sample[2].as_f64());
    ensure!(found.next().is_none(), "{name} {labels} is there twice");
    value.with_context(|| format!("{name} {labels} is not in\n{text}"))
}

/// Status and body of a page.
fn ask(node: &Node, page: &str) -> Result<(u16, String)> {
    let mut curl = node.namespace.command("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}"]);
    let text = command::run(curl.arg(format!("http://127.0.0.1:{MONITOR_PORT}/{page}")))?;
    let (body, status) = text.trim_end().rsplit_once('\n').context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}
