//! Calls at the same time, for different containers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use serde_json::Value;

use super::{Check, must};
use crate::bench::{Bench, Container};
use crate::setup::Kind;
use crate::stop::{Outcome, ensure};

const LIFECYCLE: &str = "3 Lifecycle & Ordering";
/// How many containers at once.
const CONTAINERS: usize = 8;

pub(super) const CHECKS: &[Check] = &[
    must("concurrency/add", LIFECYCLE, "ADDs at the same time all succeed", |bench| {
        add_all(bench).map(drop)
    }),
    must(
        "concurrency/addresses",
        LIFECYCLE,
        "ADDs at the same time give other addresses",
        addresses,
    ),
    must("concurrency/del", LIFECYCLE, "DELs at the same time all succeed", del),
    must("concurrency/mixed", LIFECYCLE, "ADDs and DELs at the same time all succeed", mixed),
];

type Added = (Arc<Container>, Value);

fn count(bench: &Bench<'_>) -> usize {
    bench.setup.pool.map_or(CONTAINERS, |pool| pool.min(CONTAINERS))
}

/// Does something for all of these at the same time; the first failure counts.
fn at_once<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Outcome<T> + Sync,
) -> Outcome<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        results.into_iter().collect()
    })
}

fn add_all(bench: &Bench<'_>) -> Outcome<Vec<Added>> {
    let containers = (0..count(bench)).map(|_| bench.container()).collect::<Outcome<Vec<_>>>()?;
    let results = at_once(&containers, |container| bench.add(container))?;
    Ok(containers.into_iter().zip(results).collect())
}

fn addresses(bench: &Bench<'_>) -> Outcome {
    if bench.setup.kind == Kind::Chained {
        return crate::stop::not_applicable("others give the addresses");
    }
    let mut seen = BTreeSet::new();
    for (_, result) in add_all(bench)? {
        for address in super::result::addresses(&result)? {
            ensure(seen.insert(address.addr()), || format!("{address} was given twice"))?;
        }
    }
    Ok(())
}

fn del(bench: &Bench<'_>) -> Outcome {
    let added = add_all(bench)?;
    at_once(&added, |(container, result)| bench.del(container, result)).map(drop)
}

fn mixed(bench: &Bench<'_>) -> Outcome {
    let half = count(bench) / 2;
    let old = (0..half).map(|_| bench.container()).collect::<Outcome<Vec<_>>>()?;
    let old: Vec<(Arc<Container>, Option<Value>)> = old
        .into_iter()
        .map(|container| bench.add(&container).map(|result| (container, Some(result))))
        .collect::<Outcome<_>>()?;
    let new = (0..half).map(|_| Ok((bench.container()?, None))).collect::<Outcome<Vec<_>>>()?;
    let all: Vec<_> = old.into_iter().chain(new).collect();
    at_once(&all, |(container, result)| match result {
        Some(result) => bench.del(container, result),
        None => bench.add(container).map(drop),
    })
    .map(drop)
}
