//! DEL: complete, and content with whatever is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Check, INTERFACE, must, should};
use crate::bench::{Bench, IFNAME};
use crate::kernel;
use crate::stop::{Outcome, ensure, fail};
use crate::wait::until_passes;

const DEL: &str = "2 DEL";

pub(super) const CHECKS: &[Check] = &[
    should("del/removes-interface", DEL, "DEL removes CNI_IFNAME", removes_interface)
        .kinds(INTERFACE)
        .each_version(),
    should(
        "del/removes-host-side",
        DEL,
        "DEL removes what ADD made on the host",
        removes_host_side,
    )
    .kinds(INTERFACE),
    must("del/only-its-own", DEL, "DEL leaves other containers alone", only_its_own)
        .kinds(INTERFACE),
    must("del/twice", DEL, "DEL succeeds a second and a third time", twice),
    must("del/never-added", DEL, "DEL succeeds for what was never added", never_added),
    should("del/without-prev-result", DEL, "DEL needs no prevResult", |bench| {
        del_with(bench, None)
    }),
    should("del/null-prev-result", DEL, "DEL succeeds with an empty prevResult (null)", |bench| {
        del_with(bench, Some(Value::Null))
    }),
    should("del/empty-prev-result", DEL, "DEL succeeds with an empty prevResult ({})", |bench| {
        del_with(bench, Some(json!({})))
    }),
    should("del/namespace-gone", DEL, "DEL succeeds when the namespace is gone", namespace_gone),
    should(
        "del/namespace-gone-host-side",
        DEL,
        "DEL cleans up the host also when the namespace is gone",
        namespace_gone_host_side,
    )
    .kinds(INTERFACE),
    must("del/netns-optional", DEL, "DEL needs no CNI_NETNS", netns_optional),
    should("del/interface-gone", DEL, "DEL succeeds when CNI_IFNAME is gone", interface_gone)
        .kinds(INTERFACE),
    should("del/interface-renamed", DEL, "DEL succeeds when CNI_IFNAME has another name", renamed)
        .kinds(INTERFACE),
];

fn removes_interface(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    bench.del(&container, &result)?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.is_empty(), || format!("the container has {names:?}"))
}

/// What an attachment made on the host, and others do not share, is gone. A namespace that is removed, and
/// with it the ends of pairs, goes a moment later.
pub(super) fn host_is_as(bench: &Bench<'_>, before: &BTreeSet<String>) -> Outcome {
    until_passes(|| {
        let after = kernel::names(&bench.setup.host)?;
        let mut left = after.difference(before).filter(|name| !bench.setup.shared.contains(*name));
        match left.next() {
            Some(name) => fail(format!("the host still has {name}")),
            None => Ok(()),
        }
    })
}

fn removes_host_side(bench: &Bench<'_>) -> Outcome {
    let before = kernel::names(&bench.setup.host)?;
    let container = bench.container()?;
    let result = bench.add(&container)?;
    bench.del(&container, &result)?;
    host_is_as(bench, &before)
}

fn only_its_own(bench: &Bench<'_>) -> Outcome {
    let (one, other) = (bench.container()?, bench.container()?);
    let result = bench.add(&one)?;
    bench.add(&other)?;
    let before = kernel::link(&other.namespace, IFNAME)?.map(|link| (link.global(), link.flags));
    bench.del(&one, &result)?;
    let after = kernel::link(&other.namespace, IFNAME)?.map(|link| (link.global(), link.flags));
    ensure(before.is_some() && before == after, || {
        format!("{IFNAME} of another container was {before:?} and is {after:?}")
    })
}

fn twice(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    for _ in 0..3 {
        bench.del(&container, &result)?;
    }
    Ok(())
}

fn never_added(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("DEL", &container))?.succeeded()
}

fn del_with(bench: &Bench<'_>, prev_result: Option<Value>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container))?.succeeded()?;
    let request = bench.on("DEL", &container).unset("prevResult");
    let request = match prev_result {
        Some(value) => request.prev_result(&value),
        None => request,
    };
    bench.run(request)?.succeeded()?;
    if bench.setup.kind == crate::setup::Kind::Interface {
        let names = kernel::names(&container.namespace)?;
        ensure(names.is_empty(), || format!("DEL left {names:?}"))?;
    }
    Ok(())
}

fn namespace_gone(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    container.namespace.delete()?;
    bench.del(&container, &result)
}

fn namespace_gone_host_side(bench: &Bench<'_>) -> Outcome {
    let before = kernel::names(&bench.setup.host)?;
    let container = bench.container()?;
    let result = bench.add(&container)?;
    container.namespace.delete()?;
    bench.del(&container, &result)?;
    host_is_as(bench, &before)
}

fn netns_optional(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    let request = bench.on("DEL", &container).prev_result(&result).without("CNI_NETNS");
    bench.run(request)?.succeeded()?;
    // Empty is not there, for everybody who reads it with getenv.
    let request = bench.on("DEL", &container).prev_result(&result).env("CNI_NETNS", "");
    bench.run(request)?.succeeded()
}

fn interface_gone(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    container.namespace.ip(&["link", "delete", IFNAME])?;
    bench.del(&container, &result)
}

fn renamed(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    container.namespace.ip(&["link", "set", IFNAME, "down"])?;
    container.namespace.ip(&["link", "set", IFNAME, "name", "renamed0"])?;
    bench.del(&container, &result)
}
