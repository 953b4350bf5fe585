//! Many calls of the plugin at once.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;
use tests::wait::wait_until;

use super::traces;

const AT_ONCE: usize = 50;
const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 12;
const SEEN_TIME_MAX: Duration = Duration::from_secs(15);
const ALREADY_ATTACHED: u64 = 101;

#[test]
fn fifty_adds_at_once_and_fifty_dels() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let (node, remote) = (cluster.node(1), cluster.node(2).pod()?);
        // The namespaces first, so that nothing but ADDs runs then.
        let mut pods: Vec<Pod> = (0..AT_ONCE).map(|_| node.bare_pod()).collect::<Result<_>>()?;
        at_once(pods.iter_mut(), Pod::add)?;
        let addresses: BTreeSet<IpAddr> = pods.iter().flat_map(|p| p.addresses.clone()).collect();
        ensure!(addresses.len() == 2 * AT_ONCE, "only {} addresses", addresses.len());
        let known = node.status()?["pods"].as_array().map(Vec::len);
        ensure!(known == Some(AT_ONCE), "status knows {known:?} pods");
        let _servers: Vec<Server> = pods
            .iter()
            .map(|pod| Server::start(&pod.namespace, &pod.addresses))
            .collect::<Result<_>>()?;
        for from in [&pods[AT_ONCE - 1], &remote] {
            for address in &addresses {
                probe::udp(&from.namespace, *address, 1000)?;
                probe::tcp(&from.namespace, *address, 1000)?;
            }
        }
        at_once(pods.iter_mut(), |pod| pod.delete())?;
        let left = traces::of_pods(node)?;
        ensure!(left.is_empty(), "left: {left:?}");
        for pod in &pods {
            ensure!(traces::interfaces(&pod.namespace)? == ["lo"]);
        }
        Ok(())
    });
}

#[test]
fn of_the_same_add_twice_at_once_one_works() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for _ in 0..ROUNDS {
            let pod = node.bare_pod()?;
            let results = at_once([&pod, &pod].into_iter(), |pod| pod.call("ADD"))?;
            let (worked, refused): (Vec<_>, Vec<_>) =
                results.into_iter().partition(std::result::Result::is_ok);
            ensure!(worked.len() == 1, "{} worked", worked.len());
            let error = refused.into_iter().find_map(Result::err).context("no error")?;
            ensure!(error["code"] == ALREADY_ATTACHED, "{error}");
            ensure!(error.to_string().contains("DEL first"), "{error}");
            let result = worked.into_iter().find_map(Result::ok).context("no result")?;
            ping_first(node, &result)?;
            pod.delete()?;
            traces::ensure_none(node, &pod)?;
        }
        Ok(())
    });
}

#[test]
fn add_and_del_of_the_same_at_once_leave_all_or_nothing() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for _ in 0..ROUNDS {
            let pod = node.bare_pod()?;
            let calls = [(&pod, "ADD"), (&pod, "DEL")];
            for result in at_once(calls.into_iter(), |(pod, verb)| pod.call(verb))? {
                ensure!(result.is_ok(), "{result:?}");
            }
            // Whichever came first: the interface and its entries are there together, or not at all.
            let inside = traces::interfaces(&pod.namespace)?;
            let is_there = inside.iter().any(|name| name == "eth0");
            // Two links, a veth, a file, two addresses, two pools.
            let wanted = if is_there { 8 } else { 0 };
            let left = traces::of_pods(node)?;
            ensure!(left.len() == wanted, "{inside:?} and {left:?}");
            pod.delete()?;
            traces::ensure_none(node, &pod)?;
        }
        Ok(())
    });
}

/// Whatever the agent was doing, every ADD gets its answer from the next one.
#[test]
fn adds_while_the_agent_is_killed() {
    adds_during(|node| {
        node.kill_agent();
        Ok(())
    });
}

#[test]
fn adds_while_the_agent_is_stopped() {
    adds_during(Node::stop_agent);
}

fn adds_during(end: fn(&Node) -> Result<()>) {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for _ in 0..ROUNDS {
            let pods: Vec<Pod> = (0..IN_FLIGHT).map(|_| node.bare_pod()).collect::<Result<_>>()?;
            let results = thread::scope(|scope| {
                let adds = scope.spawn(|| at_once(pods.iter(), |pod| pod.call("ADD")));
                wait_until("the first of them", SEEN_TIME_MAX, || {
                    ensure!(fs::read_dir(node.directory.join("attachments"))?.count() > 0);
                    Ok(())
                })?;
                end(node)?;
                node.spawn_agent()?;
                node.wait_for_agent()?;
                adds.join().expect("a thread")
            })?;
            for result in results {
                let result = result.map_err(|error| anyhow!("ADD: {error}"))?;
                ping_first(node, &result)?;
            }
            at_once(pods.iter(), Pod::delete)?;
            let left = traces::of_pods(node)?;
            ensure!(left.is_empty(), "left: {left:?}");
        }
        Ok(())
    });
}

pub(crate) fn ping_first(node: &Node, result: &Value) -> Result<()> {
    let address = result["ips"][0]["address"].as_str().and_then(|a| a.split('/').next());
    probe::ping(&node.namespace, address.context("no address")?.parse()?)
}

/// Does the work for each in a thread of its own.
pub(crate) fn at_once<I: Send, T: Send>(
    items: impl Iterator<Item = I>,
    work: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    })
}
