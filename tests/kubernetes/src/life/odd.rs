//! Node objects that are incomplete or contradict each other: agents say what is wrong, and go on without it. They are
//! objects alone, whose addresses the control plane's machine has.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::cluster::Mode;
use harness::probe;
use harness::wait::wait_until;

use super::pods::AGAIN;
use crate::agent::{self, NAMESPACE};
use crate::cluster::Cluster;
use crate::network::Network;
use crate::node::Node;
use crate::pod::Pod;
use crate::strangers::{Stranger, answer, answer_for, leads};

const TIME_MAX: Duration = Duration::from_secs(60);
/// Inside the first network of the first one.
const PIECES: [&str; 2] = ["10.244.100.128/25", "fd00:10:244:100:8000::/65"];
/// In that piece, and so in that network, too.
const IN_BOTH: [&str; 2] = ["10.244.100.200", "fd00:10:244:100:8000::200"];

/// All of it; `pods` shall reach those that turn out well.
pub(super) fn nodes(cluster: &mut Cluster, pods: &[Pod]) -> Result<String> {
    answer(&cluster.control)?;
    let [older, younger, late, witness] = [0, 1, 2, 3].map(Stranger::new);
    let result = late_in_all(cluster, late, witness, pods).and_then(|()| {
        overlap(cluster, [older, younger], witness, pods).context("networks that overlap")
    });
    for stranger in [older, younger, late, witness] {
        cluster
            .control
            .kubectl
            .run(&format!("delete node --ignore-not-found {}", stranger.name()))?;
    }
    result?;
    Ok("without a network, without an address, with networks of another: said by every agent"
        .into())
}

/// First it has neither network nor address, then the controllers give it the one, then it is given the other.
fn late_in_all(
    cluster: &mut Cluster,
    late: Stranger,
    witness: Stranger,
    pods: &[Pod],
) -> Result<()> {
    let name = late.name();
    cluster.control.stop_controllers()?;
    let created = late.create_with(&cluster.control, &[], &[]).and_then(|()| {
        said_by_all(
            cluster,
            &[
                format!("node {name}: it has no pod network yet (spec.podCIDRs)"),
                format!("node {name}: it has no InternalIP (no address at all)"),
            ],
        )
    });
    // Whatever was seen: later checks need them.
    cluster.control.start_controllers()?;
    created.context("neither network nor address")?;
    let mut given = Vec::new();
    cluster.control.wait("pod networks for it", |control| {
        let node = control.kubectl.get(&format!("node {name}"))?;
        let cidrs = node["spec"]["podCIDRs"].as_array().context("it has none")?.iter();
        given = cidrs.filter_map(|cidr| cidr.as_str().map(str::to_owned)).collect();
        ensure!(given.len() == late.pods().len(), "{given:?}");
        Ok(())
    })?;
    let in_each: Vec<IpAddr> = given.iter().map(|cidr| fifth(cidr)).collect::<Result<_>>()?;
    all_is_heard(cluster, witness)?;
    in_each.iter().try_for_each(|to| no_way(cluster, *to)).context("without an address")?;
    answer_for(&cluster.control, in_each.iter().copied())?;
    late.change(&cluster.control, late.addresses())?;
    in_each.iter().try_for_each(|to| way(cluster, *to, late)).context("given late")?;
    reached(cluster, pods, &in_each)
}

/// The younger one goes without its network until the older one is gone.
fn overlap(
    cluster: &Cluster,
    [older, younger]: [Stranger; 2],
    witness: Stranger,
    pods: &[Pod],
) -> Result<()> {
    let control = &cluster.control;
    let in_both = IN_BOTH.map(|text| text.parse().expect("an address"));
    answer_for(control, in_both)?;
    older.create(control)?;
    in_both.iter().try_for_each(|to| way(cluster, *to, older))?;
    younger.create_with(control, &PIECES.map(str::to_owned), &younger.addresses())?;
    let said = PIECES.iter().zip(older.pod_cidrs()).map(|(piece, whole)| {
        let (older, younger) = (older.name(), younger.name());
        format!(
            "node {younger}: its pod network {piece} overlaps {whole} of node {older}, which is \
             older and keeps it"
        )
    });
    said_by_all(cluster, &said.collect::<Vec<_>>())?;
    all_is_heard(cluster, witness)?;
    in_both.iter().try_for_each(|to| way(cluster, *to, older))?;
    reached(cluster, pods, &in_both)?;
    older.delete(control)?;
    in_both.iter().try_for_each(|to| way(cluster, *to, younger)).context("the older is gone")?;
    reached(cluster, pods, &in_both)?;
    older.pods().iter().try_for_each(|to| no_way(cluster, *to))
}

/// Waits until the log of every agent has these texts.
fn said_by_all(cluster: &Cluster, texts: &[String]) -> Result<()> {
    let kubectl = &cluster.control.kubectl;
    wait_until("agents that say it", TIME_MAX, || {
        let agents = agent::pods(kubectl)?;
        ensure!(agents.len() == cluster.nodes.len(), "{} agents", agents.len());
        for agent in agents {
            let name = agent["metadata"]["name"].as_str().context("a name")?;
            let log = kubectl.run(&format!("--namespace {NAMESPACE} logs {name}"))?;
            for text in texts {
                ensure!(log.contains(text), "`{text}` is not in what {name} said:\n{log}");
            }
        }
        Ok(())
    })
}

/// Waits until every node has in its maps what was made before: a node that is
/// made now, moved, and taken away. Agents say each of it.
fn all_is_heard(cluster: &Cluster, witness: Stranger) -> Result<()> {
    witness.create(&cluster.control)?;
    witness.pods().iter().try_for_each(|to| way(cluster, *to, witness))?;
    witness.change(&cluster.control, witness.other_addresses())?;
    for to in witness.pods() {
        wait_for_way(cluster, to, Some(witness.other_addresses()))?;
    }
    witness.delete(&cluster.control)?;
    witness.pods().iter().try_for_each(|to| no_way(cluster, *to))?;
    let said = ["is new", "has other addresses", "is gone: its pods can no longer be reached"];
    said_by_all(cluster, &said.map(|what| format!("a node {what} node=\"{}\"", witness.name())))
}

/// Waits until every node sends packets to this address to that node.
fn way(cluster: &Cluster, to: IpAddr, stranger: Stranger) -> Result<()> {
    wait_for_way(cluster, to, Some(stranger.addresses()))
}

/// Waits until no node sends packets there.
fn no_way(cluster: &Cluster, to: IpAddr) -> Result<()> {
    wait_for_way(cluster, to, None)
}

fn wait_for_way(cluster: &Cluster, to: IpAddr, wanted: Option<[IpAddr; 2]>) -> Result<()> {
    let maps = cluster.nodes.iter().map(Node::node_map).collect::<Result<Vec<_>>>()?;
    wait_until("the way that is wanted", TIME_MAX, || {
        for map in &maps {
            let is_right = leads(map, to, wanted)?;
            ensure!(is_right, "to {to} by {:?}, wanted {wanted:?}", map.way(to)?);
        }
        Ok(())
    })
}

/// Asserts that every pod reaches all of them; what ends a tunnel is not there.
fn reached(cluster: &Cluster, pods: &[Pod], all: &[IpAddr]) -> Result<()> {
    if cluster.plan.network == Network::Podwire(Mode::Vxlan) {
        return Ok(());
    }
    // Networks of the others were made again meanwhile: these pods are known by those of before.
    for pod in pods.iter().filter(|pod| !pod.name.starts_with(AGAIN)) {
        for to in all {
            probe::ping(&pod.namespace, *to).with_context(|| format!("{} to {to}", pod.name))?;
        }
    }
    Ok(())
}

/// The fifth address of a network.
fn fifth(cidr: &str) -> Result<IpAddr> {
    let (network, _) = cidr.split_once('/').context("no prefix length")?;
    Ok(match network.parse()? {
        IpAddr::V4(network) => IpAddr::from((u32::from(network) + 5).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network) + 5).to_be_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_address_is_in_the_network() {
        assert_eq!(fifth("10.244.3.0/24").unwrap().to_string(), "10.244.3.5");
        assert_eq!(fifth("fd00:10:244:3::/64").unwrap().to_string(), "fd00:10:244:3::5");
    }
}
