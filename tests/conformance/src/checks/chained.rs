//! Plugins that change what earlier ones made.

use serde_json::Value;

use super::{Check, must, reference};
use crate::bench::Bench;
use crate::setup::Kind;
use crate::stop::{Outcome, ensure};

const SUCCESS: &str = "2 ADD, 5 ADD Success";
const CHAINED: &[Kind] = &[Kind::Chained];

pub(super) const CHECKS: &[Check] = &[
    must(
        "chained/interfaces-kept",
        SUCCESS,
        "interfaces of prevResult are in the result",
        |bench| kept(bench, "interfaces", "name"),
    )
    .kinds(CHAINED)
    .each_version(),
    must("chained/ips-kept", SUCCESS, "ips of prevResult are in the result", |bench| {
        kept(bench, "ips", "address")
    })
    .kinds(CHAINED)
    .each_version(),
    must("chained/dns-kept", SUCCESS, "dns of prevResult is in the result", dns_kept)
        .kinds(CHAINED)
        .each_version(),
    reference(
        "chained/without-prev-result",
        SUCCESS,
        "ADD without prevResult fails, as there is nothing to change",
        |bench| {
            let container = bench.container()?;
            let request = bench.on("ADD", &container).unset("prevResult");
            bench.run(request)?.failed().map(drop)
        },
    )
    .kinds(CHAINED),
];

fn kept(bench: &Bench<'_>, list: &str, key: &str) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    let before = container.before.clone().unwrap_or_default();
    for entry in before[list].as_array().into_iter().flatten() {
        let mut entries = result[list].as_array().into_iter().flatten();
        ensure(entries.any(|other| other[key] == entry[key]), || {
            format!("{entry} is not in {result}")
        })?;
    }
    Ok(())
}

fn dns_kept(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let mut before = container.before.clone().unwrap_or_default();
    before["dns"] = serde_json::json!({"nameservers": ["192.0.2.53"], "search": ["example.org"]});
    let result = bench.run(bench.on("ADD", &container).prev_result(&before))?.result()?;
    let servers: &Value = &result["dns"]["nameservers"];
    ensure(*servers == before["dns"]["nameservers"], || format!("it is not: {result}"))
}
