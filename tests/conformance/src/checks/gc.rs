//! GC: what is stale goes, what is valid stays.

use serde_json::{Value, json};

use super::{ALL_KINDS, Check, INTERFACE, NOT_CHAINED, must, reference, should};
use crate::bench::{Bench, Container, IFNAME, Request};
use crate::kernel;
use crate::stop::{Outcome, ensure, fail, not_applicable};

const GC: &str = "2 GC";
/// The key of the attachments that remain.
pub(super) const VALID: &str = "cni.dev/valid-attachments";

pub(super) const CHECKS: &[Check] = &[
    should("gc/succeeds", GC, "GC succeeds with nothing to do, and needs no variables", |bench| {
        let container = bench.container()?;
        bench.add(&container)?;
        gc(bench, &[&container])?.succeeded()
    })
    .since("1.1.0"),
    must("gc/no-output", GC, "GC prints nothing when it succeeds", |bench| {
        let container = bench.container()?;
        bench.add(&container)?;
        let reply = gc(bench, &[&container])?;
        reply.succeeded()?;
        ensure(reply.stdout.trim().is_empty(), || format!("it prints {}", reply.stdout))
    })
    .since("1.1.0"),
    must("gc/keeps-valid", GC, "GC leaves a valid attachment alone", keeps_valid)
        .kinds(INTERFACE)
        .since("1.1.0"),
    must("gc/keeps-valid-address", GC, "GC keeps the address of a valid attachment", keeps_address)
        .kinds(NOT_CHAINED)
        .since("1.1.0")
        .pool(),
    should("gc/removes-stale", GC, "GC releases the address of a stale attachment", |bench| {
        releases(bench, true)
    })
    .kinds(NOT_CHAINED)
    .since("1.1.0")
    .pool(),
    should("gc/empty-list", GC, "GC with an empty list releases all addresses", |bench| {
        releases(bench, false)
    })
    .kinds(NOT_CHAINED)
    .since("1.1.0")
    .pool(),
    should("gc/by-interface", GC, "an attachment with another ifname is stale", by_interface)
        .kinds(NOT_CHAINED)
        .since("1.1.0")
        .pool(),
    must("gc/other-network", GC, "GC of another network removes nothing", other_network)
        .kinds(INTERFACE)
        .since("1.1.0"),
    should("gc/del-after", "2 DEL", "DEL succeeds after GC", |bench| {
        let container = bench.container()?;
        let result = bench.add(&container)?;
        container.namespace.delete()?;
        gc(bench, &[])?.succeeded()?;
        bench.del(&container, &result)
    })
    .since("1.1.0"),
    reference("gc/old-version", "Released versions", "GC before 1.1.0 gives code 1", |bench| {
        old_version(bench, valid(bench.call("GC"), &[]))
    })
    .kinds(ALL_KINDS)
    .until("1.0.0"),
];

/// A request with the attachments of these containers.
pub(super) fn valid(request: Request, containers: &[&Container]) -> Request {
    let entry = |container: &&Container| json!({"containerID": container.id, "ifname": IFNAME});
    request.set(VALID, containers.iter().map(entry).collect::<Vec<_>>())
}

/// Who does not know the verb at all may also say that.
pub(super) fn old_version(bench: &Bench<'_>, request: Request) -> Outcome {
    if !bench.setup.has("1.1.0") {
        return not_applicable("the plugin does not have the verb");
    }
    bench.run(request)?.failed_with(&[1]).map(drop)
}

fn gc(bench: &Bench<'_>, containers: &[&Container]) -> Outcome<crate::reply::Reply> {
    bench.run(valid(bench.call("GC"), containers))
}

fn keeps_valid(bench: &Bench<'_>) -> Outcome {
    let (container, stale) = (bench.container()?, bench.container()?);
    let result = bench.add(&container)?;
    bench.add(&stale)?;
    stale.namespace.delete()?;
    let before = kernel::names(&bench.setup.host)?;
    gc(bench, &[&container])?.succeeded()?;
    intact(bench, &container, &result)?;
    let after = kernel::names(&bench.setup.host)?;
    for interface in result["interfaces"].as_array().into_iter().flatten() {
        let name = interface["name"].as_str().unwrap_or_default();
        ensure(!before.contains(name) || after.contains(name), || format!("GC removed {name}"))?;
    }
    Ok(())
}

fn intact(bench: &Bench<'_>, container: &Container, result: &Value) -> Outcome {
    let Some(link) = kernel::link(&container.namespace, IFNAME)? else {
        return fail(format!("GC removed {IFNAME} of a valid attachment"));
    };
    for address in super::result::addresses(result)? {
        ensure(link.global().contains(&address), || format!("GC removed {address}"))?;
    }
    bench.check(container, result)?.succeeded()
}

/// With all addresses given, one attachment is stale: only its address is there for others.
fn keeps_address(bench: &Bench<'_>) -> Outcome {
    let all = super::pool::fill(bench)?;
    let kept: Vec<&Container> = all.iter().skip(1).map(|(container, _)| &**container).collect();
    let Some((stale, _)) = all.first() else { return Ok(()) };
    stale.namespace.delete()?;
    gc(bench, &kept)?.succeeded()?;
    bench.add(&*bench.container()?)?;
    let one_more = bench.container()?;
    let reply = bench.run(bench.on("ADD", &one_more))?;
    ensure(!reply.status.success(), || {
        format!("GC released the address of a valid attachment: {}", reply.stdout)
    })
}

fn releases(bench: &Bench<'_>, keep_one: bool) -> Outcome {
    let all = super::pool::fill(bench)?;
    let kept: Vec<&Container> =
        all.iter().take(usize::from(keep_one)).map(|(container, _)| &**container).collect();
    for (container, _) in &all[kept.len()..] {
        container.namespace.delete()?;
    }
    gc(bench, &kept)?.succeeded()?;
    for _ in kept.len()..all.len() {
        bench.add(&*bench.container()?)?;
    }
    Ok(())
}

fn by_interface(bench: &Bench<'_>) -> Outcome {
    let all = super::pool::fill(bench)?;
    let entry = |(index, id): (usize, &String)| {
        let ifname = if index == 0 { "another0" } else { IFNAME };
        json!({"containerID": id, "ifname": ifname})
    };
    let list: Vec<_> =
        all.iter().map(|(container, _)| &container.id).enumerate().map(entry).collect();
    let Some((stale, _)) = all.first() else { return Ok(()) };
    stale.namespace.delete()?;
    bench.run(bench.call("GC").set(VALID, list))?.succeeded()?;
    bench.add(&*bench.container()?).map(drop)
}

fn other_network(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    let name = format!("{}-other", bench.setup.plugin.config["name"].as_str().unwrap_or_default());
    bench.run(valid(bench.call("GC"), &[]).set("name", name))?.succeeded()?;
    intact(bench, &container, &result)
}
