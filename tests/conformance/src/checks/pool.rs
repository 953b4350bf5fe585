//! A network that is full: addresses are released, and not before.

use std::sync::Arc;

use serde_json::Value;

use super::{Check, NOT_CHAINED, must, should};
use crate::bench::{Bench, Container};
use crate::stop::{Outcome, ensure};

const DEL: &str = "2 DEL";

pub(super) const CHECKS: &[Check] = &[
    must("pool/full", "2 Errors", "ADD fails when no address is left", |bench| {
        let _all = fill(bench)?;
        let one_more = bench.container()?;
        bench.run(bench.on("ADD", &one_more))?.failed().map(drop)
    })
    .kinds(NOT_CHAINED)
    .pool(),
    should("pool/del-releases", DEL, "DEL releases the address", |bench| {
        releases(bench, |container, result| bench.del(container, result))
    })
    .kinds(NOT_CHAINED)
    .pool(),
    should("pool/del-releases-without-namespace", DEL, "so it does without a namespace", |bench| {
        releases(bench, |container, result| {
            container.namespace.delete()?;
            bench.del(container, result)
        })
    })
    .kinds(NOT_CHAINED)
    .pool(),
    should("pool/del-releases-without-netns", DEL, "so it does without CNI_NETNS", |bench| {
        releases(bench, |container, result| {
            let request = bench.on("DEL", container).prev_result(result).without("CNI_NETNS");
            bench.run(request)?.succeeded()
        })
    })
    .kinds(NOT_CHAINED)
    .pool(),
    should(
        "pool/del-releases-without-prev-result",
        DEL,
        "so it does without prevResult",
        |bench| {
            releases(bench, |container, _| {
                bench.run(bench.on("DEL", container).unset("prevResult"))?.succeeded()
            })
        },
    )
    .kinds(NOT_CHAINED)
    .pool(),
    should(
        "pool/failed-add-releases",
        "3 Lifecycle & Ordering",
        "so does a failed ADD",
        failed_add,
    )
    .kinds(NOT_CHAINED)
    .pool(),
];

type Added = (Arc<Container>, Value);

/// Attaches containers until no address is left.
pub(super) fn fill(bench: &Bench<'_>) -> Outcome<Vec<Added>> {
    let pool = bench.setup.pool.unwrap_or_default();
    let add = |_| {
        let container = bench.container()?;
        let result = bench.add(&container)?;
        Ok((container, result))
    };
    (0..pool).map(add).collect()
}

fn releases(bench: &Bench<'_>, release: impl Fn(&Container, &Value) -> Outcome) -> Outcome {
    let mut all = fill(bench)?;
    let Some((container, result)) = all.pop() else { return Ok(()) };
    release(&container, &result)?;
    let other = bench.container()?;
    let result = bench.add(&other)?;
    ensure(!super::result::addresses(&result)?.is_empty(), || format!("no address: {result}"))
}

/// The runtime calls DEL for an ADD that failed; as often as there are addresses none is lost.
fn failed_add(bench: &Bench<'_>) -> Outcome {
    for _ in 0..=bench.setup.pool.unwrap_or_default() {
        let container = bench.container()?;
        container.namespace.delete()?;
        bench.run(bench.on("ADD", &container))?;
        bench.run(bench.on("DEL", &container))?.succeeded()?;
    }
    bench.add(&*bench.container()?).map(drop)
}
