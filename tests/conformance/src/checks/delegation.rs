//! Delegation: what the plugin for addresses gets, and what becomes of its answers.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Check, must, should};
use crate::bench::{Bench, Container, Request};
use crate::delegate::{CODE, Called, STDERR, StandIn};
use crate::stop::{Outcome, ensure, fail, not_applicable};

const PROTOCOL: &str = "4 Delegated Plugin protocol";
const PROCEDURE: &str = "4 Delegated plugin execution procedure";
/// A variable that plugins do not know.
const EXTRA: &str = "CONFORMANCE_EXTRA";

pub(super) const CHECKS: &[Check] = &[
    must("delegation/found-by-path", PROTOCOL, "the plugin is searched for in CNI_PATH", |bench| {
        calls(bench, "ADD").map(drop)
    })
    .delegate(),
    must("delegation/environment", PROTOCOL, "it gets the same environment", environment)
        .delegate(),
    must("delegation/configuration", PROTOCOL, "it gets the complete configuration", configuration)
        .delegate(),
    should("delegation/stderr", PROCEDURE, "its stderr is in that of its caller", stderr)
        .delegate(),
    must("delegation/result", "0.4.0 Result", "its addresses are those of the result", result)
        .delegate(),
    must("delegation/add-error", PROCEDURE, "ADD fails if its ADD fails", |bench| {
        error(bench, "ADD")
    })
    .delegate(),
    should("delegation/add-undone", PROCEDURE, "its DEL is run if its ADD fails", add_undone)
        .delegate(),
    must("delegation/del", PROCEDURE, "its DEL is run on DEL", |bench| {
        calls(bench, "DEL").map(drop)
    })
    .delegate(),
    should("delegation/del-error", PROCEDURE, "DEL fails if its DEL fails", |bench| {
        error(bench, "DEL")
    })
    .delegate(),
    should(
        "delegation/del-namespace-gone",
        "2 DEL",
        "its DEL is run also when the namespace is gone",
        del_namespace_gone,
    )
    .delegate(),
    must("delegation/check", PROCEDURE, "its CHECK is run on CHECK", |bench| {
        calls(bench, "CHECK").map(drop)
    })
    .delegate()
    .since("0.4.0"),
    should("delegation/check-error", PROCEDURE, "CHECK fails if its CHECK fails", |bench| {
        error(bench, "CHECK")
    })
    .delegate()
    .since("0.4.0"),
    must("delegation/gc", "2 GC", "its GC is run on GC, with the same attachments", gc)
        .delegate()
        .since("1.1.0"),
    should("delegation/gc-error", PROCEDURE, "GC fails if its GC fails", |bench| {
        error(bench, "GC")
    })
    .delegate()
    .since("1.1.0"),
    must("delegation/status", "2 STATUS", "its STATUS is run on STATUS", |bench| {
        calls(bench, "STATUS").map(drop)
    })
    .delegate()
    .since("1.1.0"),
    should("delegation/status-error", "2 STATUS", "STATUS fails if its STATUS fails", |bench| {
        error(bench, "STATUS")
    })
    .delegate()
    .since("1.1.0"),
];

/// A stand-in for the plugin for addresses, and a bench on which it is found first. The bench has to be
/// dropped before it.
pub(super) fn stand_in<'a>(bench: &Bench<'a>) -> Outcome<(StandIn, Bench<'a>)> {
    let Some(name) = bench.setup.delegate() else { return not_applicable("nothing is delegated") };
    let stand_in = StandIn::new(name, &bench.setup.cni_path)?;
    let mut own = Bench::new(bench.setup, bench.version);
    own.cni_path = format!("{}:{}", stand_in.path().display(), bench.setup.cni_path);
    Ok((stand_in, own))
}

/// The request of a verb, after all that has to come before it.
fn request(bench: &Bench<'_>, verb: &str) -> Outcome<(Arc<Container>, Request)> {
    let container = bench.container()?;
    let request = match verb {
        "ADD" => bench.on(verb, &container),
        "GC" | "STATUS" => super::gc::valid(bench.call(verb), &[]),
        _ => {
            let result = bench.add(&container)?;
            bench.on(verb, &container).prev_result(&result)
        }
    };
    Ok((container, request.env(EXTRA, "yes")))
}

/// Makes a call, and returns those of the same verb that reached the stand-in.
fn calls(bench: &Bench<'_>, verb: &str) -> Outcome<(Vec<Called>, Request)> {
    let (stand_in, bench) = stand_in(bench)?;
    let (_container, request) = request(&bench, verb)?;
    stand_in.calls()?;
    bench.run(request.clone())?.succeeded()?;
    let mut calls = stand_in.calls()?;
    calls.retain(|call| call.verb == verb);
    ensure(!calls.is_empty(), || format!("{verb} of the delegated plugin was not run"))?;
    Ok((calls, request))
}

fn error(bench: &Bench<'_>, verb: &str) -> Outcome {
    let (stand_in, bench) = stand_in(bench)?;
    let (_container, request) = request(&bench, verb)?;
    stand_in.fail(&[verb])?;
    let reply = bench.run(request)?;
    stand_in.fail(&[])?;
    if reply.status.success() {
        return fail(format!(
            "{verb} of the delegated plugin failed (code {CODE}), its caller not"
        ));
    }
    Ok(())
}

fn environment(bench: &Bench<'_>) -> Outcome {
    let (calls, request) = calls(bench, "ADD")?;
    for (name, value) in request.environment() {
        for call in &calls {
            let got = call.environment.get(name);
            ensure(got == Some(value), || format!("{name} is {got:?}, not {value:?}"))?;
        }
    }
    Ok(())
}

fn configuration(bench: &Bench<'_>) -> Outcome {
    let (calls, request) = calls(bench, "ADD")?;
    for call in &calls {
        ensure(call.input == *request.config(), || {
            format!("it got {}, its caller {}", call.input, request.config())
        })?;
    }
    Ok(())
}

fn stderr(bench: &Bench<'_>) -> Outcome {
    let (_stand_in, bench) = stand_in(bench)?;
    let (_container, request) = request(&bench, "ADD")?;
    let reply = bench.run(request)?;
    reply.succeeded()?;
    ensure(reply.stderr.contains(STDERR), || format!("stderr is {:?}", reply.stderr))
}

fn result(bench: &Bench<'_>) -> Outcome {
    let (stand_in, bench) = stand_in(bench)?;
    let (_container, request) = request(&bench, "ADD")?;
    let own = bench.run(request)?.result()?;
    let Some(call) = stand_in.calls()?.pop() else { return fail("it was not run") };
    // An interface may have them with a longer prefix, where the plugin gives it no network of its own.
    let addresses = |result| -> Outcome<Vec<IpAddr>> {
        Ok(super::result::addresses(result)?.iter().map(IpNet::addr).collect())
    };
    let (own, given) = (addresses(&own)?, addresses(&call.output)?);
    ensure(own == given, || format!("the delegated plugin gave {given:?}, the result has {own:?}"))
}

fn add_undone(bench: &Bench<'_>) -> Outcome {
    let (stand_in, bench) = stand_in(bench)?;
    let (_container, request) = request(&bench, "ADD")?;
    stand_in.fail(&["ADD"])?;
    stand_in.calls()?;
    bench.run(request)?.failed()?;
    let verbs: Vec<_> = stand_in.calls()?.into_iter().map(|call| call.verb).collect();
    ensure(verbs == ["ADD", "DEL"], || format!("the delegated plugin was run with {verbs:?}"))
}

fn del_namespace_gone(bench: &Bench<'_>) -> Outcome {
    let (stand_in, bench) = stand_in(bench)?;
    let (container, request) = request(&bench, "DEL")?;
    container.namespace.delete()?;
    stand_in.calls()?;
    bench.run(request)?.succeeded()?;
    let calls = stand_in.calls()?;
    ensure(calls.iter().any(|call| call.verb == "DEL"), || "it was not run".to_owned())
}

fn gc(bench: &Bench<'_>) -> Outcome {
    let (calls, request) = calls(bench, "GC")?;
    let key = super::gc::VALID;
    for call in &calls {
        ensure(call.input[key] == request.config()[key], || format!("it got {}", call.input))?;
    }
    Ok(())
}
