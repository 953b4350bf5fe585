//! The metrics: names, units and explanations. docs/metrics.md has the same list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use cni_shim::protocol::{Call, Reply};
use dataplane_core::abi::names::{MAP_NODES, MAP_PODS, NODES_MAX, PODS_MAX};
use dataplane_core::abi::{ABI_VERSION, Counter, Stats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter as Count;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Vitals;
use crate::ipam::Usage;
use crate::kernel::{KernelError, ReadCounters};
use crate::nodes::source::age;
use crate::plan::KINDS;

/// Of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// In front of every name.
const PREFIX: &str = "podwire";
/// Upper bounds of the durations of calls, in seconds: a call has ten.
const BUCKETS: [f64; 12] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

type Labels<const N: usize> = [(&'static str, String); N];

/// What the server counts of the plugin's calls.
#[derive(Clone, Debug)]
pub struct Calls {
    durations: Family<Labels<1>, Histogram, fn() -> Histogram>,
    failures: Family<Labels<2>, Count>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            failures: Family::default(),
        }
    }
}

impl Calls {
    /// Counts a call from the moment it was read to its reply; none when there was none in time.
    pub fn count(&self, call: &'static str, took: Duration, reply: &Reply) {
        let call = || ("call", call.to_owned());
        self.durations.get_or_create(&[call()]).observe(took.as_secs_f64());
        if let Reply::Failed(failure) = reply {
            self.failures.get_or_create(&[call(), ("code", failure.code.to_string())]).inc();
        }
    }
}

/// The name of a call in labels.
pub fn call_name(call: &Call) -> &'static str {
    match call {
        Call::Add(_) => "add",
        Call::Del(_) => "del",
        Call::Gc(_) => "gc",
        Call::Ready(_) => "ready",
        Call::Status => "status",
    }
}

/// All metrics as text. The counters of the programs are there once the programs are.
///
/// # Errors
/// When the counters cannot be read.
pub(super) fn render(
    vitals: &Vitals,
    calls: &Calls,
    counters: &OnceLock<ReadCounters>,
) -> Result<String, KernelError> {
    let counted = counters.get().map(|read| read()).transpose()?;
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_with_unit(
        "cni_request_duration",
        "Time that the agent took for a request of the plugin, from reading it to the reply",
        Unit::Seconds,
        calls.durations.clone(),
    );
    registry.register(
        "cni_request_failures",
        "Requests of the plugin that were refused, by the error's code",
        calls.failures.clone(),
    );
    registry.register_collector(Box::new(Seen { vitals: vitals.clone(), counted }));
    let mut text = String::new();
    // A String takes everything.
    let _ = encode(&mut text, &registry);
    Ok(text)
}

/// What is known at this moment.
#[derive(Debug)]
struct Seen {
    vitals: Vitals,
    counted: Option<BTreeMap<u32, Stats>>,
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.build(&mut encoder)?;
        if let Some(counted) = &self.counted {
            packets(&mut encoder, counted)?;
        }
        self.engine(&mut encoder)?;
        self.pools(&mut encoder)?;
        self.maps(&mut encoder)
    }
}

impl Seen {
    fn build(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = MetricType::Info;
        let help = "Version of the agent, and of the layouts of the maps";
        let abi = ABI_VERSION.to_string();
        encoder
            .encode_descriptor("build", help, None, kind)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION")), ("abi_version", abi.as_str())])
    }

    fn engine(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let vitals = &self.vitals;
        let is_current = u32::from(vitals.silent_since.is_none());
        plain(encoder, "ready", "1 when an ADD would be served", u32::from(vitals.ready.is_ok()))?;
        plain(encoder, "nodes", "Nodes that are known, this one among them", vitals.nodes)?;
        let help = "1 when what is known of the nodes is as new as can be";
        plain(encoder, "nodes_current", help, is_current)?;
        let help = "How long the source of nodes has not been heard";
        let seconds = Some(&Unit::Seconds);
        let mut gauge = encoder.encode_descriptor("nodes_age", help, seconds, MetricType::Gauge)?;
        gauge.encode_gauge(&age(vitals.silent_since).as_secs_f64())?;
        plain(encoder, "pods", "Interfaces of pods", vitals.pods)?;
        plain(encoder, "problems", "Problems of the agent in `status`", vitals.problems)?;

        let help = "Comparisons of what should be with what is, by how they ended";
        let mut looks =
            encoder.encode_descriptor("reconciliations", help, None, MetricType::Counter)?;
        for (result, count) in [("settled", vitals.settled), ("failed", vitals.failed)] {
            counter(&mut looks, ("result", result), count)?;
        }
        let help = "Things of ours that somebody else changed and the agent put back, by kind";
        let mut drift = encoder.encode_descriptor("drift", help, None, MetricType::Counter)?;
        let mut counts: BTreeMap<&str, u64> = KINDS.into_iter().map(|kind| (kind, 0)).collect();
        counts.extend(&vitals.drift);
        for (kind, count) in counts {
            counter(&mut drift, ("kind", kind), count)?;
        }
        Ok(())
    }

    fn pools(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let pools = &self.vitals.pools;
        let free = |pool: &Usage| pool.capacity.saturating_sub(pool.used as u128) as f64;
        let used = |pool: &Usage| pool.used as f64;
        pool(encoder, "pool_free_addresses", "Addresses that new pods can have", pools, free)?;
        pool(encoder, "pool_used_addresses", "Addresses that pods have", pools, used)
    }

    fn maps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Entries of a map, at the last look";
        let mut entries =
            encoder.encode_descriptor("map_entries", help, None, MetricType::Gauge)?;
        for (name, count) in &self.vitals.entries {
            entries.encode_family(&[("map", *name)])?.encode_gauge(count)?;
        }
        let help = "Entries that a map can have";
        let mut most =
            encoder.encode_descriptor("map_capacity_entries", help, None, MetricType::Gauge)?;
        for (name, count) in [(MAP_PODS, PODS_MAX), (MAP_NODES, NODES_MAX)] {
            most.encode_family(&[("map", name)])?.encode_gauge(&count)?;
        }
        Ok(())
    }
}

/// One number of two.
type Part = fn(&Stats) -> u64;

/// What the programs count, in packets and in bytes.
fn packets(encoder: &mut DescriptorEncoder<'_>, counted: &BTreeMap<u32, Stats>) -> fmt::Result {
    let help = "that programs forwarded, left to the host stack or answered, by way";
    family(encoder, "forwarded", help, "path", counted, |counter| {
        matches!(counter, Counter::Path(_))
    })?;
    let help = "that programs dropped, by reason";
    family(encoder, "dropped", help, "reason", counted, |counter| {
        matches!(counter, Counter::Drop(_))
    })
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counted: &BTreeMap<u32, Stats>,
    is_of_it: impl Fn(&Counter) -> bool,
) -> fmt::Result {
    let packets = Unit::Other("packets".to_owned());
    let units: [(Unit, &str, Part); 2] = [
        (packets, "Packets", |stats| stats.packets),
        (Unit::Bytes, "Bytes of packets", |stats| stats.bytes),
    ];
    for (unit, what, value) in units {
        let help = format!("{what} {help}");
        let mut family =
            encoder.encode_descriptor(name, &help, Some(&unit), MetricType::Counter)?;
        for of_it in Counter::all().filter(&is_of_it) {
            let stats = counted.get(&of_it.number()).copied().unwrap_or_default();
            counter(&mut family, (label, of_it.name()), value(&stats))?;
        }
    }
    Ok(())
}

fn pool(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    pools: &[Usage],
    value: impl Fn(&Usage) -> f64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for pool in pools {
        let cidr = pool.cidr.to_string();
        let ip_family = if pool.cidr.addr().is_ipv4() { "ipv4" } else { "ipv6" };
        let labels = [("pool", cidr.as_str()), ("family", ip_family)];
        family.encode_family(&labels)?.encode_gauge(&value(pool))?;
    }
    Ok(())
}

fn plain(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue + Copy,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn counter(family: &mut MetricEncoder<'_>, label: (&str, &str), value: u64) -> fmt::Result {
    family.encode_family(&[label])?.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}
