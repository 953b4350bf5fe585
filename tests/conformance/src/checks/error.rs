//! Errors.

use serde_json::Value;

use super::{Check, must, should};
use crate::bench::Bench;
use crate::stop::{Outcome, ensure};

const ERROR: &str = "5 Error";
/// Codes below 100 that have a meaning.
const WELL_KNOWN: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 11, 50, 51];

pub(super) const CHECKS: &[Check] = &[
    must("error/exit-status", "2 Errors", "a failure has an exit status that is not 0", |bench| {
        provoke(bench)?.failed().map(drop)
    }),
    should("error/on-stdout", ERROR, "an error is one JSON object on standard output", |bench| {
        provoke(bench)?.object().map(drop)
    }),
    should("error/code", ERROR, "an error has a numeric code that is not 0", |bench| {
        let error = document(bench)?;
        ensure(error["code"].as_u64().is_some_and(|code| code > 0), || format!("no code: {error}"))
    }),
    must(
        "error/well-known-code",
        ERROR,
        "codes below 100 are those of the specification",
        well_known_code,
    ),
    should("error/message", ERROR, "an error has a msg", |bench| {
        let error = document(bench)?;
        let has_text = error["msg"].as_str().is_some_and(|text| !text.is_empty());
        ensure(has_text, || format!("no msg: {error}"))
    }),
    should("error/details", ERROR, "details is a text where it is given", |bench| {
        let error = document(bench)?;
        let details = &error["details"];
        ensure(details.is_string() || details.is_null(), || format!("no text: {error}"))
    }),
    should("error/cni-version", ERROR, "an error has the cniVersion of the request", |bench| {
        let error = document(bench)?;
        ensure(error["cniVersion"] == bench.version, || {
            format!("cniVersion is {}, not {:?}", error["cniVersion"], bench.version)
        })
    })
    .each_version(),
];

/// Every plugin must refuse this: ADD without a container id.
fn provoke(bench: &Bench<'_>) -> Outcome<crate::reply::Reply> {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container).without("CNI_CONTAINERID"))
}

fn document(bench: &Bench<'_>) -> Outcome<Value> {
    provoke(bench)?.object()
}

fn well_known_code(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let gone = "/run/netns/cnic-never-was-there";
    let requests = [
        bench.on("ADD", &container).without("CNI_CONTAINERID"),
        bench.on("ADD", &container).stdin("no JSON"),
        bench.on("ADD", &container).set("cniVersion", "99.0.0"),
        bench.on("ADD", &container).set("name", "a/b"),
        bench.on("ADD", &container).env("CNI_NETNS", gone),
        bench.on("FROBNICATE", &container),
    ];
    for request in requests {
        let reply = bench.run(request)?;
        // A plugin for addresses need not look at the namespace.
        if reply.status.success() {
            continue;
        }
        let error = reply.object()?;
        let code = error["code"].as_u64().unwrap_or_default();
        ensure(code >= 100 || WELL_KNOWN.contains(&code), || format!("{}: {error}", reply.call))?;
    }
    Ok(())
}
