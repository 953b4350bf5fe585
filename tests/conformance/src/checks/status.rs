//! STATUS: whether ADD would work.

use super::{ALL_KINDS, Check, NOT_CHAINED, must, reference, should};
use crate::bench::Bench;
use crate::stop::{Outcome, ensure};

const STATUS: &str = "2 STATUS";
/// Its own codes.
const CODES: [u64; 2] = [50, 51];

pub(super) const CHECKS: &[Check] = &[
    must("status/ready", STATUS, "STATUS succeeds when ADD does", |bench| {
        bench.add(&*bench.container()?)?;
        bench.run(bench.call("STATUS"))?.succeeded()
    })
    .since("1.1.0"),
    must("status/path-optional", STATUS, "STATUS needs no variable but CNI_COMMAND", |bench| {
        if bench.setup.delegate().is_some() {
            return crate::stop::not_applicable("the plugin needs CNI_PATH to delegate");
        }
        bench.run(bench.call("STATUS").without("CNI_PATH"))?.succeeded()
    })
    .since("1.1.0"),
    should("status/full", STATUS, "STATUS fails when no address is left", |bench| {
        let _all = super::pool::fill(bench)?;
        bench.run(bench.call("STATUS"))?.failed().map(drop)
    })
    .kinds(NOT_CHAINED)
    .since("1.1.0")
    .pool(),
    must("status/code", STATUS, "a STATUS that fails has code 50 or 51", |bench| {
        let _all = super::pool::fill(bench)?;
        bench.run(bench.call("STATUS"))?.failed_with(&CODES).map(drop)
    })
    .kinds(NOT_CHAINED)
    .since("1.1.0")
    .pool(),
    should("status/others-work", STATUS, "other calls work while STATUS fails", others_work)
        .kinds(NOT_CHAINED)
        .since("1.1.0")
        .pool(),
    reference("status/old-version", "Released versions", "STATUS before 1.1.0 gives code 1", |b| {
        super::gc::old_version(b, b.call("STATUS"))
    })
    .kinds(ALL_KINDS)
    .until("1.0.0"),
];

fn others_work(bench: &Bench<'_>) -> Outcome {
    let mut all = super::pool::fill(bench)?;
    bench.run(bench.call("STATUS"))?.failed()?;
    let Some((container, result)) = all.pop() else { return Ok(()) };
    bench.check(&container, &result)?.succeeded()?;
    bench.del(&container, &result)?;
    let reply = bench.run(bench.call("STATUS"))?;
    ensure(reply.status.success(), || format!("STATUS fails after a DEL: {}", reply.says()))
}
