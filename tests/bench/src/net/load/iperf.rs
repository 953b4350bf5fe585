//! Streams and datagrams by iperf3.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tests::command;
use tests::namespace::Namespace;

use super::{STALL_TIME_MAX, softirq};
use crate::net::metric::Metric;
use crate::net::way::Way;

const IPERF: &str = "iperf3";
/// What one run takes; shorter ones iperf3 does not know.
const SECONDS: &str = "1";
/// The kernel's default, whatever the machine has been set to.
const CONGESTION: &str = "cubic";
const GIGABYTE: f64 = 1e9;

/// One server at each address: at all of them, it would answer datagrams with another one. They end with this.
#[derive(Debug)]
pub(crate) struct Servers(Vec<Child>);

impl Servers {
    /// Starts them, and waits until they serve.
    ///
    /// # Errors
    /// When one does not.
    pub(crate) fn start<'a>(places: impl Iterator<Item = (&'a Namespace, IpAddr)>) -> Result<Self> {
        let mut servers = Self(Vec::new());
        for (namespace, address) in places {
            let mut command = namespace.program(IPERF);
            command.args(["--server", "--forceflush", "--bind", &address.to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().context("start iperf3")?;
            let stdout = child.stdout.take().context("its output")?;
            servers.0.push(child);
            let (serves, is_up) = mpsc::channel();
            // It goes on talking about each run.
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if line.contains("listening") {
                        let _ = serves.send(());
                    }
                }
            });
            if is_up.recv_timeout(STALL_TIME_MAX).is_err() {
                bail!("iperf3 does not serve in {}", namespace.name());
            }
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// What TCP streams came to.
pub(super) struct Streams {
    bits_per_second: f64,
    bytes: f64,
    processor: f64,
}

impl Streams {
    /// Gigabits per second, and processor seconds of both ends per gigabyte.
    pub(super) fn figures(&self, rate: Metric, cpu: Metric) -> Vec<(Metric, f64)> {
        let per_gigabyte = self.processor / (self.bytes / GIGABYTE);
        vec![(rate, self.bits_per_second / 1e9), (cpu, per_gigabyte)]
    }
}

/// So many at the same time.
pub(super) fn streams(way: &Way, count: u8) -> Result<Streams> {
    let mut arguments = vec!["--congestion".to_owned(), CONGESTION.to_owned()];
    arguments.extend(["--parallel".to_owned(), count.to_string()]);
    let (end, processor) = call(way, &arguments)?;
    let received = &end["sum_received"];
    Ok(Streams {
        bits_per_second: number(received, "bits_per_second")?,
        bytes: number(received, "bytes")?,
        processor,
    })
}

/// What datagrams came to.
pub(super) struct Flood {
    seconds: f64,
    sent: f64,
    lost: f64,
    processor: f64,
}

impl Flood {
    /// Received per second, percent lost, and processor seconds of both ends per million received.
    pub(super) fn figures(&self, rate: Metric, loss: Metric, cpu: Metric) -> Vec<(Metric, f64)> {
        let received = self.sent - self.lost;
        vec![
            (rate, received / self.seconds),
            (loss, 100.0 * self.lost / self.sent),
            (cpu, self.processor / (received / 1e6)),
        ]
    }
}

/// As many as can be sent, with so many bytes.
pub(super) fn flood(way: &Way, bytes: u16) -> Result<Flood> {
    let mut arguments = ["--udp", "--bitrate", "0", "--length"].map(str::to_owned).to_vec();
    arguments.push(bytes.to_string());
    let (end, processor) = call(way, &arguments)?;
    let sum = &end["sum"];
    Ok(Flood {
        seconds: number(sum, "seconds")?,
        sent: number(sum, "packets")?,
        lost: number(sum, "lost_packets")?,
        processor,
    })
}

/// Runs a client; what it says at the end, and processor seconds of both ends.
fn call(way: &Way, arguments: &[String]) -> Result<(Value, f64)> {
    let mut client = way.client.command(IPERF);
    client.args(["--client", &way.address.to_string(), "--json", "--interval", "0"]);
    client.args(["--time", SECONDS, "--connect-timeout", "3000"]).args(arguments);
    let before = softirq::seconds()?;
    let output = command::output(&mut client)?;
    let softirq = softirq::seconds()? - before;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let document = Value::from_str(&stdout).with_context(|| text(&client, &stdout))?;
    if let Some(error) = document["error"].as_str() {
        bail!("{}", text(&client, error));
    }
    let end = &document["end"];
    let utilization = &end["cpu_utilization_percent"];
    let percent = number(utilization, "host_total")? + number(utilization, "remote_total")?;
    let sent = if end["sum_sent"].is_object() { &end["sum_sent"] } else { &end["sum"] };
    Ok((end.clone(), percent / 100.0 * number(sent, "seconds")? + softirq))
}

fn number(object: &Value, key: &str) -> Result<f64> {
    object[key].as_f64().with_context(|| format!("iperf3 says no {key} in {object}"))
}

fn text(command: &Command, what: &str) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    format!("{}: {what}", words.join(" "))
}

/// Its version.
///
/// # Errors
/// When it is not there.
pub(crate) fn version() -> Result<String> {
    let text = command::run(Command::new(IPERF).arg("--version"))?;
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}
