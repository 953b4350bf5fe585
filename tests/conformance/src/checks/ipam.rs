//! Plugins that give addresses to other plugins.

use super::{Check, must};
use crate::bench::Bench;
use crate::setup::Kind;
use crate::stop::{Outcome, ensure};

const DELEGATED: &str = "5 Delegated plugins (IPAM)";
const IPAM: &[Kind] = &[Kind::Ipam];

pub(super) const CHECKS: &[Check] = &[
    must("ipam/no-interfaces", DELEGATED, "the result has no interfaces", |bench| {
        let result = bench.add(&*bench.container()?)?;
        ensure(result["interfaces"].is_null(), || format!("it has: {result}"))
    })
    .kinds(IPAM)
    .each_version(),
    must("ipam/no-interface-index", DELEGATED, "ips have no interface", |bench| {
        let result = bench.add(&*bench.container()?)?;
        let mut ips = result["ips"].as_array().into_iter().flatten();
        ensure(ips.all(|ip| ip["interface"].is_null()), || format!("they have: {result}"))
    })
    .kinds(IPAM)
    .each_version(),
    must("ipam/addresses", "4 Plugin Delegation", "the result has addresses", addresses)
        .kinds(IPAM)
        .each_version(),
];

fn addresses(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    let count = super::result::addresses(&result)?.len();
    ensure(count > 0, || format!("it has none: {result}"))
}
