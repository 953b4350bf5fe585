//! ADD: what it does in the container, and what it refuses.

use std::net::IpAddr;

use super::{Check, INTERFACE, NOT_CHAINED, must, reference, should};
use crate::bench::{Bench, Container, IFNAME};
use crate::kernel;
use crate::stop::{Outcome, ensure, fail, not_applicable};

const ADD: &str = "2 ADD";

pub(super) const CHECKS: &[Check] = &[
    should("add/makes-interface", ADD, "ADD makes the interface CNI_IFNAME", makes_interface)
        .kinds(INTERFACE),
    must("add/interface-up", "2 Overview", "the interface is up", interface_up).kinds(INTERFACE),
    must("add/only-its-interface", ADD, "ADD makes no other interface there", only_its_interface)
        .kinds(INTERFACE),
    must(
        "add/other-name",
        "2 Parameters",
        "another CNI_IFNAME, of 15 bytes, is used or refused",
        other_name,
    )
    .kinds(INTERFACE),
    must(
        "add/interface-exists",
        ADD,
        "ADD fails if the container has an interface of that name, and leaves it alone",
        interface_exists,
    )
    .kinds(INTERFACE),
    must("add/twice", ADD, "a second ADD fails, as the interface exists", twice).kinds(INTERFACE),
    reference(
        "add/twice-keeps-first",
        ADD,
        "a second ADD leaves the first one intact",
        keeps_first,
    )
    .kinds(INTERFACE),
    should(
        "add/second-interface",
        "2 ADD, 3 Lifecycle & Ordering",
        "a container can get a second interface of another name",
        second_interface,
    )
    .kinds(INTERFACE),
    must("add/namespace-missing", ADD, "ADD fails if CNI_NETNS is not there", namespace_missing)
        .kinds(INTERFACE),
    must("add/no-namespace", ADD, "ADD fails if CNI_NETNS is no namespace", no_namespace)
        .kinds(INTERFACE),
    reference(
        "add/failure-leaves-nothing",
        "3 Lifecycle & Ordering",
        "an ADD that fails leaves no interface in the container",
        failure_leaves_nothing,
    )
    .kinds(INTERFACE)
    .delegate(),
    must(
        "add/del-after-failure",
        "3 Lifecycle & Ordering",
        "DEL after an ADD that failed succeeds, and nothing is left",
        del_after_failure,
    )
    .kinds(INTERFACE),
    must(
        "add/again",
        "3 Lifecycle & Ordering",
        "ADD works again for the same container after DEL",
        again,
    ),
    must(
        "add/prev-result",
        "2 ADD, 5 ADD Success",
        "an ADD with a prevResult passes it on in its result, or refuses",
        prev_result,
    )
    .kinds(INTERFACE),
    should(
        "add/addresses-distinct",
        "Overview",
        "containers have addresses of their own",
        addresses_distinct,
    )
    .kinds(NOT_CHAINED),
];

fn link(container: &Container, name: &str) -> Outcome<kernel::Link> {
    match kernel::link(&container.namespace, name)? {
        Some(link) => Ok(link),
        None => fail(format!("ADD succeeded, but {name} is not there")),
    }
}

fn makes_interface(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container))?.succeeded()?;
    link(&container, IFNAME).map(drop)
}

fn interface_up(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container))?.succeeded()?;
    ensure(link(&container, IFNAME)?.is_up(), || format!("{IFNAME} is down"))
}

fn only_its_interface(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container))?.succeeded()?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.iter().eq([IFNAME]), || format!("the container has {names:?}"))
}

fn other_name(bench: &Bench<'_>) -> Outcome {
    let name = "fifteen-bytes-x";
    let container = bench.container()?;
    let reply = bench.run(bench.on("ADD", &container).env("CNI_IFNAME", name))?;
    if !reply.status.success() {
        return Ok(());
    }
    link(&container, name)?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.len() == 1, || format!("the container has {names:?}"))?;
    let result = reply.result()?;
    let interfaces = result["interfaces"].as_array().into_iter().flatten();
    let has = interfaces.clone().any(|interface| interface["name"] == name);
    ensure(has, || format!("the result does not have {name}: {result}"))?;
    let del = bench.on("DEL", &container).env("CNI_IFNAME", name).prev_result(&result);
    bench.run(del)?.succeeded()?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.is_empty(), || format!("DEL left {names:?}"))
}

fn interface_exists(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    container.namespace.ip(&["link", "add", IFNAME, "type", "veth", "peer", "name", "peer0"])?;
    let before = kernel::link(&container.namespace, IFNAME)?.map(|link| link.address);
    bench.run(bench.on("ADD", &container))?.failed()?;
    let after = kernel::link(&container.namespace, IFNAME)?.map(|link| link.address);
    container.namespace.ip(&["link", "delete", "peer0"]).map(drop).unwrap_or_default();
    ensure(before == after, || format!("{IFNAME} of the container was changed"))
}

fn twice(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container))?.succeeded()?;
    bench.run(bench.on("ADD", &container))?.failed().map(drop)
}

fn keeps_first(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container))?.succeeded()?;
    let before = link(&container, IFNAME)?;
    bench.run(bench.on("ADD", &container))?;
    let after = link(&container, IFNAME)?;
    let facts = |link: &kernel::Link| (link.address.clone(), link.global());
    ensure(facts(&before) == facts(&after), || format!("{IFNAME} was changed"))
}

fn second_interface(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.add(&container)?;
    let second = |verb| bench.on(verb, &container).env("CNI_IFNAME", "net1");
    let result = bench.run(second("ADD"))?.result()?;
    link(&container, "net1")?;
    bench.run(second("DEL").prev_result(&result))?.succeeded()?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.iter().eq([IFNAME]), || format!("DEL of net1 left {names:?}"))
}

fn namespace_missing(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    container.namespace.delete()?;
    bench.run(bench.on("ADD", &container))?.failed().map(drop)
}

fn no_namespace(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let file = tempfile::NamedTempFile::new().map_err(anyhow::Error::from)?;
    let path = file.path().display().to_string();
    bench.run(bench.on("ADD", &container).env("CNI_NETNS", &path))?.failed().map(drop)
}

fn failure_leaves_nothing(bench: &Bench<'_>) -> Outcome {
    let (stand_in, bench) = super::delegation::stand_in(bench)?;
    let container = bench.container()?;
    stand_in.fail(&["ADD"])?;
    bench.run(bench.on("ADD", &container))?.failed()?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.is_empty(), || format!("the failed ADD left {names:?}"))
}

fn del_after_failure(bench: &Bench<'_>) -> Outcome {
    let before = kernel::names(&bench.setup.host)?;
    let container = bench.container()?;
    container.namespace.ip(&["link", "add", "blocker", "type", "veth", "peer", "name", IFNAME])?;
    bench.run(bench.on("ADD", &container))?.failed()?;
    // The runtime gives up, and with it goes what was in the way.
    container.namespace.ip(&["link", "delete", "blocker"])?;
    bench.run(bench.on("DEL", &container))?.succeeded()?;
    let names = kernel::names(&container.namespace)?;
    ensure(names.is_empty(), || format!("the container has {names:?}"))?;
    super::del::host_is_as(bench, &before)
}

fn again(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    bench.del(&container, &result)?;
    bench.add(&container).map(drop)
}

fn prev_result(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let sandbox = container.namespace.path().display().to_string();
    let mut address = serde_json::json!({"address": "192.0.2.7/24", "interface": 0});
    if !crate::setup::at_least(bench.version, "1.0.0") {
        address["version"] = "4".into();
    }
    let before = serde_json::json!({
        "cniVersion": bench.version,
        "interfaces": [{"name": "before0", "mac": "02:00:00:00:00:07", "sandbox": sandbox}],
        "ips": [address],
        "dns": {},
    });
    let reply = bench.run(bench.on("ADD", &container).prev_result(&before))?;
    if !reply.status.success() {
        return Ok(());
    }
    let result = reply.result()?;
    let has = |list: &str, key: &str, wanted: &str| {
        let found = result[list].as_array().into_iter().flatten().any(|entry| entry[key] == wanted);
        ensure(found, || format!("{wanted} of prevResult is not in the result: {result}"))
    };
    has("interfaces", "name", "before0")?;
    has("ips", "address", "192.0.2.7/24")
}

fn addresses_distinct(bench: &Bench<'_>) -> Outcome {
    let mut seen: Vec<IpAddr> = Vec::new();
    for _ in 0..2 {
        let container = bench.container()?;
        let result = bench.add(&container)?;
        let own = super::result::addresses(&result)?;
        if own.is_empty() {
            return not_applicable("the network has no addresses");
        }
        for address in own {
            ensure(!seen.contains(&address.addr()), || format!("{address} was given twice"))?;
            seen.push(address.addr());
        }
    }
    Ok(())
}
