//! Addresses from the distribution's `host-local` and `static`, and addresses that are asked for.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::fabric::WORLD;
use tests::node::{CniCall, Node};
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;
use tests::wait::wait_until;

use super::{killed, parallel, traces};

const HOST_LOCAL: &str = "/usr/lib/cni/host-local";
const AT_ONCE: usize = 50;
const SEEN_TIME_MAX: Duration = Duration::from_secs(15);
const INVALID_CONFIG: u64 = 7;
const ADDRESS_IN_USE: u64 = 110;
pub(crate) const DELEGATE: u64 = 111;

/// With addresses of the pod networks that the node with this number has.
pub(crate) fn host_local(node: &Node, number: u8) -> Value {
    let mut configuration = plain(node);
    configuration["ipam"] = host_local_ranges(node, number);
    configuration
}

pub(crate) fn host_local_ranges(node: &Node, number: impl std::fmt::Display) -> Value {
    json!({
        "type": "host-local",
        "dataDir": node.directory.join("leases"),
        "ranges": [
            [{ "subnet": format!("10.244.{number}.0/24") }],
            [{ "subnet": format!("fd00:10:244:{number}::/64") }],
        ],
    })
}

/// The addresses that files of `host-local` reserve.
pub(crate) fn leases(node: &Node) -> Result<BTreeSet<IpAddr>> {
    let directory = node.directory.join("leases/podwire");
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    let mut leases = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        leases.extend(entry?.file_name().to_string_lossy().parse::<IpAddr>());
    }
    Ok(leases)
}

pub(crate) fn ensure_nothing_is_left(node: &Node, pod: &Pod) -> Result<()> {
    traces::ensure_none(node, pod)?;
    let left = leases(node)?;
    ensure!(left.is_empty(), "leases: {left:?}");
    Ok(())
}

pub(crate) fn call(
    pod: &Pod,
    verb: &str,
    configuration: &Value,
    environment: &[(&str, &str)],
) -> Result<Result<Value, Value>> {
    let netns = pod.netns();
    let call = CniCall { command: verb, container_id: &pod.container_id, netns: &netns };
    pod.node.cni_in(&call, configuration, environment)
}

/// Calls ADD, and remembers what a pod remembers.
fn add(pod: &mut Pod, configuration: &Value) -> Result<()> {
    let added = call(pod, "ADD", configuration, &[])?;
    pod.result = added.map_err(|error| anyhow!("ADD: {error}"))?;
    let ips = pod.result["ips"].as_array().context("no ips")?;
    let address = |ip: &Value| -> Result<IpAddr> {
        let text = ip["address"].as_str().context("address")?;
        let (address, length) = text.split_once('/').context("no length")?;
        ensure!(length == if address.contains(':') { "128" } else { "32" }, "{text}");
        Ok(address.parse()?)
    };
    pod.addresses = ips.iter().map(address).collect::<Result<_>>()?;
    pod.addresses.sort();
    Ok(())
}

fn delete(pod: &Pod, configuration: &Value) -> Result<()> {
    call(pod, "DEL", configuration, &[])?.map(drop).map_err(|error| anyhow!("DEL: {error}"))
}

fn check(pod: &Pod, configuration: &Value) -> Result<()> {
    let mut configuration = configuration.clone();
    configuration["prevResult"] = pod.result.clone();
    call(pod, "CHECK", &configuration, &[])?.map(drop).map_err(|error| anyhow!("CHECK: {error}"))
}

/// In the newest version that the distribution's plugins know.
fn plain(node: &Node) -> Value {
    let mut configuration = node.cni_configuration();
    configuration["cniVersion"] = "1.0.0".into();
    configuration
}

#[test]
fn pods_with_addresses_of_host_local_talk_across_nodes() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let configurations = [1, 2].map(|number| host_local(cluster.node(number.into()), number));
        let nodes = [1, 2].map(|number| cluster.node(number));
        let mut pods = Vec::new();
        for (node, configuration) in nodes.into_iter().zip(&configurations) {
            let mut pod = node.bare_pod()?;
            add(&mut pod, configuration)?;
            let wanted: BTreeSet<IpAddr> = pod.addresses.iter().copied().collect();
            ensure!(wanted.len() == 2 && leases(node)? == wanted, "{wanted:?}");
            let shown = pod.namespace.run("ip -o address show dev eth0")?;
            for address in &pod.addresses {
                let length = if address.is_ipv4() { 32 } else { 128 };
                ensure!(shown.contains(&format!(" {address}/{length} ")), "{shown}");
            }
            check(&pod, configuration)?;
            pods.push(pod);
        }
        let _servers: Vec<Server> = pods
            .iter()
            .map(|pod| Server::start(&pod.namespace, &pod.addresses))
            .collect::<Result<_>>()?;
        for (from, to) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
            for address in &to.addresses {
                probe::all(&from.namespace, *address)?;
            }
        }
        for (pod, configuration) in pods.iter().zip(&configurations) {
            delete(pod, configuration)?;
            delete(pod, configuration).context("again")?;
            ensure_nothing_is_left(&pod.node, pod)?;
        }
        Ok(())
    });
}

/// An address of no pod network, routes and DNS as `static` has them.
#[test]
fn routes_and_dns_are_obeyed_and_strange_addresses_work_on_their_node() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let mut configuration = plain(node);
        configuration["ipam"] = json!({
            "type": "static",
            "addresses": [{ "address": "192.0.2.5/24" }],
            "routes": [{ "dst": "10.244.0.0/16" }, { "dst": "203.0.113.0/24", "gw": "192.0.2.1" }],
            "dns": { "nameservers": ["10.96.0.10"], "search": ["example.org"] },
        });
        let mut strange = node.bare_pod()?;
        add(&mut strange, &configuration)?;
        let routes = strange.namespace.run("ip route show via 169.254.1.1")?;
        let routes: Vec<&str> = routes.lines().filter_map(|line| line.split(' ').next()).collect();
        ensure!(routes == ["10.244.0.0/16", "203.0.113.0/24"], "{routes:?}");
        let result = &strange.result;
        ensure!(result["dns"] == configuration["ipam"]["dns"], "{result}");
        ensure!(result["routes"][0] == json!({ "dst": "10.244.0.0/16", "gw": "169.254.1.1" }));
        check(&strange, &configuration)?;

        let pod = node.pod()?;
        let _servers = [&strange, &pod].map(|pod| Server::start(&pod.namespace, &pod.addresses));
        probe::all(&pod.namespace, strange.addresses[0])?;
        probe::all(&strange.namespace, pod.addresses[0])?;
        probe::ping(&node.namespace, strange.addresses[0])?;
        probe::ping(&strange.namespace, WORLD[0].parse()?)?;
        delete(&strange, &configuration)?;
        pod.delete()?;
        traces::ensure_none(node, &strange)
    });
}

/// As results of CNI 1.1.0 have them.
#[test]
fn routes_have_table_metric_and_mtu_as_they_are_given() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let result = json!({
            "cniVersion": "1.0.0",
            "ips": [{ "address": "10.244.1.7/24" }, { "address": "fd00:10:244:1::7/64" }],
            "routes": [
                { "dst": "0.0.0.0/0", "priority": 50, "mtu": 1400, "advmss": 1200 },
                { "dst": "10.9.0.0/16", "table": 1007 },
                { "dst": "fd09::/64", "table": 107, "priority": 9 },
            ],
        });
        let plugin = node.directory.join("given");
        let script = format!("#!/bin/sh\n[ $CNI_COMMAND != ADD ] || echo '{result}'\n");
        command::write_program(&plugin, &script)?;
        let path = node.directory.to_string_lossy().into_owned();
        let mut configuration = plain(node);
        configuration["ipam"] = json!({ "type": "given" });
        configuration["cniVersion"] = "1.1.0".into();
        let pod = node.bare_pod()?;
        let added = call(&pod, "ADD", &configuration, &[("CNI_PATH", &path)])?;
        let added = added.map_err(|error| anyhow!("ADD: {error}"))?;
        ensure!(added["routes"][1]["table"] == 1007, "{added}");
        for (words, wanted) in [
            (
                "ip route",
                "default via 169.254.1.1 dev eth0 proto static metric 50 mtu 1400 advmss 1200",
            ),
            ("ip route show table 1007", "10.9.0.0/16 via 169.254.1.1 dev eth0"),
            ("ip -6 route show table 107", "fd09::/64 via fe80::1 dev eth0 proto static metric 9"),
        ] {
            let shown = pod.namespace.run(words)?;
            ensure!(shown.contains(wanted), "{words}: {shown}");
        }
        Ok(())
    });
}

#[test]
fn an_add_that_fails_behind_host_local_leaves_no_lease() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.bare_pod()?;
        let error = call(&pod, "ADD", &host_local(node, 2), &[])?.err().context("it worked")?;
        ensure!(error["code"] == INVALID_CONFIG, "{error}");
        ensure!(error.to_string().contains("10.244.2.0/24, which is the node node2's"), "{error}");
        ensure!(node.directory.join("leases/podwire/last_reserved_ip.0").exists(), "not called");
        ensure_nothing_is_left(node, &pod)
    });
}

#[test]
fn errors_of_host_local_pass_as_they_are() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let mut configuration = host_local(node, 1);
        configuration["ipam"]["ranges"] = json!([[{
            "subnet": "10.244.1.0/24", "rangeStart": "10.244.1.9", "rangeEnd": "10.244.1.9",
        }]]);
        let mut pod = node.bare_pod()?;
        add(&mut pod, &configuration)?;
        let mut senseless = configuration.clone();
        senseless["ipam"]["ranges"] = json!([]);
        let other = node.bare_pod()?;
        let late = [("ADD", &other, &configuration), ("DEL", &pod, &senseless)];
        for (verb, pod, configuration) in late {
            let direct = call_host_local(pod, verb, configuration)?;
            let error = call(pod, verb, configuration, &[])?.err().context("it worked")?;
            for key in ["code", "msg", "details"] {
                ensure!(error[key] == direct[key], "{verb}: {error}, not {direct}");
            }
            ensure!(traces::interfaces(&pod.namespace)? == ["lo"] || verb == "ADD", "it is there");
        }
        ensure!(traces::interfaces(&other.namespace)? == ["lo"]);
        delete(&pod, &configuration)?;
        ensure_nothing_is_left(node, &other)
    });
}

fn call_host_local(pod: &Pod, verb: &str, configuration: &Value) -> Result<Value> {
    let mut command = pod.node.namespace.command(HOST_LOCAL);
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &pod.container_id);
    command.env("CNI_NETNS", pod.netns()).env("CNI_IFNAME", "eth0").env("CNI_PATH", "/");
    let output = command::feed(&mut command, &configuration.to_string())?;
    ensure!(!output.status.success(), "host-local worked");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn del_removes_what_a_killed_add_of_host_local_left() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let configuration = host_local(node, 1);
        let steps = [killed::steps()?, killed::ipam_steps()?].concat();
        for step in &steps {
            let mut pod = node.bare_pod()?;
            traces::killed_add_with(&pod, step, &configuration)?;
            delete(&pod, &configuration).with_context(|| format!("killed behind {step}"))?;
            ensure_nothing_is_left(node, &pod).with_context(|| format!("killed behind {step}"))?;
            add(&mut pod, &configuration)?;
            probe::ping(&node.namespace, pod.addresses[0])?;
            delete(&pod, &configuration)?;
        }
        Ok(())
    });
}

/// Killed ADDs, a pod that nobody deletes, and a DEL that did not find the plugin.
#[test]
fn the_agent_gives_back_the_leases_that_nobody_does() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let configuration = host_local(node, 1);
        let mut abandoned = Vec::new();
        for step in ["announced", "leased", "routes"] {
            let pod = node.bare_pod()?;
            traces::killed_add_with(&pod, step, &configuration)?;
            abandoned.push(pod);
        }
        let mut pod = node.bare_pod()?;
        add(&mut pod, &configuration)?;
        abandoned.push(pod);
        let mut deleted = node.bare_pod()?;
        add(&mut deleted, &configuration)?;
        let nowhere = [("CNI_PATH", "/nonexistent")];
        let error = call(&deleted, "DEL", &configuration, &nowhere)?.err().context("it worked")?;
        ensure!(error["code"] == DELEGATE, "{error}");
        ensure!(error["details"].as_str().is_some_and(|d| d.contains("/nonexistent")), "{error}");
        ensure!(traces::interfaces(&deleted.namespace)? == ["lo"], "the interface stays");
        ensure!(leases(node)?.len() == 2 * 4, "{:?}", leases(node)?);
        node.kill_agent();
        drop(abandoned);
        // The first look shall see that all are gone.
        traces::wait_for_end_of_interfaces(node, 0)?;
        node.spawn_agent()?;
        node.wait_for_agent()?;
        traces::wait_for_sweep(node)?;
        ensure_nothing_is_left(node, &deleted)
    });
}

#[test]
fn adds_with_host_local_while_the_agent_is_killed() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let configuration = host_local(node, 1);
        for _ in 0..3 {
            let mut pods: Vec<Pod> = (0..12).map(|_| node.bare_pod()).collect::<Result<_>>()?;
            std::thread::scope(|scope| {
                let adds = scope
                    .spawn(|| parallel::at_once(pods.iter_mut(), |pod| add(pod, &configuration)));
                wait_until("the first of them", SEEN_TIME_MAX, || {
                    ensure!(fs::read_dir(node.directory.join("attachments"))?.count() > 0);
                    Ok(())
                })?;
                node.kill_agent();
                node.spawn_agent()?;
                node.wait_for_agent()?;
                adds.join().expect("a thread")
            })?;
            for pod in &pods {
                probe::ping(&node.namespace, pod.addresses[1])?;
            }
            parallel::at_once(pods.iter(), |pod| delete(pod, &configuration))?;
            ensure_nothing_is_left(node, &pods[0])?;
        }
        Ok(())
    });
}

#[test]
fn what_was_freed_before_the_agent_was_killed_is_not_the_next_address() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pods: Vec<Pod> = (0..3).map(|_| node.pod()).collect::<Result<_>>()?;
        pods[2].delete()?;
        node.kill_agent();
        node.spawn_agent()?;
        node.wait_for_agent()?;
        let next: Vec<Pod> = (0..8).map(|_| node.pod()).collect::<Result<_>>()?;
        for pod in &next {
            for address in &pods[2].addresses {
                ensure!(!pod.addresses.contains(address), "{address} again at once");
            }
        }
        Ok(())
    });
}

#[test]
fn fifty_adds_at_once_with_host_local() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let configuration = host_local(node, 1);
        let mut pods: Vec<Pod> = (0..AT_ONCE).map(|_| node.bare_pod()).collect::<Result<_>>()?;
        parallel::at_once(pods.iter_mut(), |pod| add(pod, &configuration))?;
        let addresses: BTreeSet<IpAddr> = pods.iter().flat_map(|p| p.addresses.clone()).collect();
        ensure!(addresses.len() == 2 * AT_ONCE && leases(node)? == addresses, "{addresses:?}");
        for pod in &pods {
            probe::ping(&node.namespace, pod.addresses[0])?;
        }
        parallel::at_once(pods.iter(), |pod| delete(pod, &configuration))?;
        ensure_nothing_is_left(node, &pods[0])
    });
}

#[test]
fn addresses_and_macs_that_are_asked_for_are_given_or_refused() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let plain = plain(node);
        let mut asked = plain.clone();
        asked["runtimeConfig"] =
            json!({ "ips": ["10.244.1.77/24", "fd00:10:244:1::77"], "mac": "02:00:5E:10:00:77" });
        let mut pod = node.bare_pod()?;
        add(&mut pod, &asked)?;
        let wanted: Vec<IpAddr> = vec!["10.244.1.77".parse()?, "fd00:10:244:1::77".parse()?];
        ensure!(pod.addresses == wanted, "{:?}", pod.addresses);
        let link = pod.namespace.run("ip link show dev eth0")?;
        ensure!(link.contains("link/ether 02:00:5e:10:00:77"), "{link}");
        check(&pod, &plain)?;
        for address in wanted {
            probe::ping(&node.namespace, address)?;
        }

        let other = node.bare_pod()?;
        let before = traces::of_pods(node)?;
        for (args, code, why) in [
            ("IP=10.244.1.77", ADDRESS_IN_USE, "10.244.1.77 is in use"),
            ("IP=10.244.1.1", INVALID_CONFIG, "the node's own address"),
            ("IP=10.244.1.255", INVALID_CONFIG, "the broadcast address"),
            ("IP=10.244.2.5", INVALID_CONFIG, "none of the pod networks of this node"),
            ("IP=10.244.1.5,10.244.1.6", 4, "of the same family"),
            ("MAC=01:00:5e:00:00:01", 4, "a group of interfaces"),
        ] {
            let error = call(&other, "ADD", &plain, &[("CNI_ARGS", args)])?;
            let error = error.err().with_context(|| format!("{args} worked"))?;
            ensure!(error["code"] == code && error.to_string().contains(why), "{args}: {error}");
            ensure!(traces::of_pods(node)? == before, "{args} left something");
            ensure!(traces::interfaces(&other.namespace)? == ["lo"], "{args}");
        }
        delete(&pod, &plain)?;
        let args = [("CNI_ARGS", "IgnoreUnknown=1;IP=10.244.1.77;MAC=02:00:00:00:00:01")];
        let result = call(&other, "ADD", &plain, &args)?.map_err(|error| anyhow!("{error}"))?;
        ensure!(result["ips"][0]["address"] == "10.244.1.77/32", "{result}");
        ensure!(result["interfaces"][1]["mac"] == "02:00:00:00:00:01", "{result}");
        delete(&other, &plain)?;
        traces::ensure_none(node, &other)
    });
}

#[test]
fn dhcp_is_refused_with_the_reason() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let mut configuration = plain(node);
        configuration["ipam"] = json!({ "type": "dhcp" });
        let pod = node.bare_pod()?;
        let error = call(&pod, "ADD", &configuration, &[])?.err().context("it worked")?;
        ensure!(error["code"] == 2, "{error}");
        ensure!(error.to_string().contains("no broadcast domain"), "{error}");
        delete(&pod, &configuration)?;
        traces::ensure_none(node, &pod)
    });
}
