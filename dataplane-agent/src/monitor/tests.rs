//! Answers by themselves, and through real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use cni_shim::error::{KERNEL, failure};
use cni_shim::protocol::Reply;
use dataplane_core::abi::{DropReason, Stats};

use super::*;
use crate::kernel::KernelError;

const TABLE: &str = include_str!("../../../docs/metrics.md");

fn vitals() -> Vitals {
    let usage = |cidr: &str, used, capacity| Usage { cidr: cidr.parse().unwrap(), used, capacity };
    Vitals {
        ready: Ok(()),
        nodes: 3,
        pods: 2,
        drift: [("route", 4)].into(),
        pools: vec![usage("10.1.0.0/24", 2, 253), usage("fd00::/64", 2, (1 << 64) - 3)],
        entries: [("pw_pods", 4), ("pw_nodes", 9)].into(),
        ..Vitals::starting()
    }
}

fn monitor(vitals: Vitals) -> (watch::Sender<Vitals>, Monitor) {
    let (sender, receiver) = watch::channel(vitals);
    let calls = Calls::default();
    calls.count("add", Duration::from_millis(3), &Reply::Deleted);
    calls.count("add", Duration::from_secs(11), &Reply::Failed(failure(KERNEL, "no", "no")));
    let monitor = Monitor::new(receiver, calls);
    let spoofed = Stats { packets: 7, bytes: 700 };
    let number = DropReason::SpoofedSource as u32;
    monitor.count(Box::new(move || Ok(BTreeMap::from([(number, spoofed)]))));
    (sender, monitor)
}

fn metrics(monitor: &Monitor) -> String {
    let answer = monitor.answer("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[test]
fn values_are_where_they_belong() {
    let (_sender, monitor) = monitor(vitals());
    let text = metrics(&monitor);
    for line in [
        "podwire_dropped_packets_total{reason=\"spoofed_source\"} 7",
        "podwire_dropped_bytes_total{reason=\"spoofed_source\"} 700",
        "podwire_forwarded_packets_total{path=\"pod_to_pod\"} 0",
        "podwire_nodes 3",
        "podwire_pods 2",
        "podwire_ready 1",
        "podwire_nodes_current 1",
        "podwire_drift_total{kind=\"route\"} 4",
        "podwire_drift_total{kind=\"link\"} 0",
        "podwire_pool_free_addresses{pool=\"10.1.0.0/24\",family=\"ipv4\"} 251.0",
        "podwire_map_entries{map=\"pw_nodes\"} 9",
        "podwire_map_capacity_entries{map=\"pw_pods\"} 16384",
        "podwire_cni_request_duration_seconds_count{call=\"add\"} 2",
        "podwire_cni_request_duration_seconds_bucket{le=\"0.005\",call=\"add\"} 1",
        "podwire_cni_request_failures_total{call=\"add\",code=\"100\"} 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|there| there == line), "{line}:\n{text}");
    }
}

/// Name, type and explanation of every metric.
fn declared(text: &str) -> BTreeMap<String, (String, String)> {
    let mut all: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        if let ["#", what, name, value] = words[..] {
            let entry = all.entry(name.to_owned()).or_default();
            match what {
                "HELP" => entry.1 = value.trim_end_matches('.').to_owned(),
                "TYPE" => entry.0 = value.to_owned(),
                _ => {}
            }
        }
    }
    all
}

#[test]
fn the_documentation_lists_what_there_is() {
    let (_sender, monitor) = monitor(vitals());
    let row = |line: &str| -> Option<(String, (String, String))> {
        let cells: Vec<&str> = line.strip_prefix("| `podwire_")?.split('|').collect();
        let [name, kind, _labels, help, _end] = cells[..] else { panic!("{line}") };
        let name = name.trim().trim_end_matches('`');
        let name = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        Some((format!("podwire_{name}"), (kind.trim().to_owned(), help.trim().to_owned())))
    };
    let documented: BTreeMap<_, _> = TABLE.lines().filter_map(row).collect();
    assert_eq!(declared(&metrics(&monitor)), documented);
}

#[test]
fn counters_that_cannot_be_read_are_no_zeros() {
    let (sender, receiver) = watch::channel(vitals());
    let monitor = Monitor::new(receiver, Calls::default());
    assert!(!metrics(&monitor).contains("podwire_dropped"), "no programs yet");
    let what = "read pw_stats".to_owned();
    let refused = move || Err(KernelError { what: what.clone(), source: "EPERM".into() });
    monitor.count(Box::new(refused));
    let answer = monitor.answer("/metrics");
    assert!(answer.status == 500 && answer.body.contains("read pw_stats"), "{answer:?}");
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn health_is_that_of_the_engine() {
    let (sender, monitor) = monitor(Vitals::starting());
    assert_eq!(monitor.answer("/healthz"), Answer::text(200, "ok"));
    assert_eq!(monitor.answer("/readyz"), Answer::text(503, "the agent starts"));
    sender.send_replace(vitals());
    assert_eq!(monitor.answer("/readyz"), Answer::text(200, "ok"));
    let full = Err("no pod address is free".to_owned());
    sender.send_replace(Vitals { ready: full, ..vitals() });
    assert_eq!(monitor.answer("/readyz"), Answer::text(503, "no pod address is free"));
    sender.send_replace(vitals());
    tokio::time::advance(BEAT_TIME_MAX + Duration::from_secs(1)).await;
    for path in ["/healthz", "/readyz"] {
        let answer = monitor.answer(path);
        assert!(answer.status == 503 && answer.body.contains("61 s"), "{path}: {answer:?}");
    }
    sender.send_replace(vitals());
    assert_eq!(monitor.answer("/healthz").status, 200);
    assert_eq!(monitor.answer("/").status, 404);
}

fn started() -> (Serving, watch::Sender<Vitals>, SocketAddr) {
    let (sender, monitor) = monitor(vitals());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().unwrap();
    (listener.serve(Arc::new(monitor)).unwrap(), sender, address)
}

/// Sends a request as it is, and reads to the end.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The end of a request that is refused may meet a closed socket.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_are_answered_or_refused() {
    let (_serving, _sender, address) = started();
    let get = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = exchange(address, &get("GET /readyz"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"));
    let answer = exchange(address, &get("HEAD /metrics"));
    assert!(answer.contains("application/openmetrics-text") && answer.ends_with("\r\n\r\n"));
    let answer = exchange(address, &get("POST /metrics"));
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    let answer = exchange(address, &long);
    assert!(!answer.contains("200 OK"), "{answer}");
    let answer = exchange(address, "\0\0\0\0\r\n\r\n");
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[test]
fn silent_clients_keep_out_nobody() {
    let (_serving, _sender, address) = started();
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = exchange(address, request);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // The oldest had to go long before their time was over.
    silent[0].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let end = (&silent[0]).read(&mut [0]);
    let is_open = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!is_open, "it is still open");
}

#[test]
fn a_port_in_use_is_named() {
    let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.address().unwrap();
    let error = Listener::bind(address).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
    assert!(error.contains(&format!("sport = :{}", address.port())), "{error}");
}

#[test]
fn it_ends_when_it_is_dropped() {
    let (serving, _sender, address) = started();
    let silent = TcpStream::connect(address).unwrap();
    drop(serving);
    assert!(TcpStream::connect(address).is_err());
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(!matches!((&silent).read(&mut [0]), Ok(1..)), "it is still served");
    drop(Listener::bind(address).unwrap());
}
