//! The agent's memory with many pods on its node, in a large cluster; and the size of the image.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::memory::{self, MIB};
use harness::ratio::at_most;
use harness::report::{Verdict, progress, section, table};
use harness::wait::wait_until;

use super::Size;
use super::crowd::Crowd;
use crate::agent::{NAMESPACE, SELECTOR, metric};
use crate::cluster::Cluster;
use crate::strangers::{Stranger, answer};
use crate::{agent, network};

/// MiB.
const WANTED: f64 = 16.0;
const IMAGE_WANTED: f64 = 15.0;
const START_TIME_MAX: Duration = Duration::from_secs(60);
const KNOWN_TIME_MAX: Duration = Duration::from_secs(30);

/// Makes nodes and pods, and looks at the agent of the node that has the pods. They go with the cluster.
pub(super) fn run(cluster: &Cluster, size: Size) -> Result<Vec<Verdict>> {
    answer_and_create(cluster, size)?;
    start_again(cluster, size)?;
    let mut crowd = Crowd::new(cluster)?;
    let mut grid = table(&["pods", "nodes known", "resident", "of it anonymous", "the most ever"]);
    let before = look(cluster)?;
    crowd.resize(size.pods)?;
    let with = look(cluster)?;
    for (pods, memory) in [(0, before), (size.pods, with)] {
        let mut row = vec![pods.to_string(), size.nodes.to_string()];
        let figures = [memory.resident, memory.anonymous, memory.peak];
        row.extend(figures.map(|bytes| format!("{:.1}", bytes as f64 / MIB)));
        grid.add_row(row);
    }
    section("Memory of the agent of the node with the pods, in MiB");
    println!("{grid}");
    let resident = with.resident as f64 / MIB;
    let image = fs::metadata(network::image()?).context("the image")?.len() as f64 / MIB;
    let of_image = Verdict {
        text: format!("image as it is loaded: {image:.1} MiB, at most {IMAGE_WANTED:.0}"),
        outcome: at_most(image, IMAGE_WANTED),
    };
    let of_agent = Verdict {
        text: format!(
            "agent with {} pods on its node and {} nodes known: {resident:.1} MiB resident, at most {WANTED:.0}",
            size.pods, size.nodes
        ),
        outcome: at_most(resident, WANTED),
    };
    Ok(vec![of_agent, of_image])
}

fn look(cluster: &Cluster) -> Result<memory::Memory> {
    memory::of_process(agent::process(&cluster.nodes[0])?)
}

fn strangers(cluster: &Cluster, size: Size) -> impl Iterator<Item = Stranger> {
    (0..size.nodes.saturating_sub(cluster.nodes.len())).map(Stranger::new)
}

/// Lets the agent list them all, as where it starts in such a cluster.
fn start_again(cluster: &Cluster, size: Size) -> Result<()> {
    let node = &cluster.nodes[0];
    let before = agent::process(node)?;
    cluster.control.kubectl.run(&format!(
        "delete pod --namespace {NAMESPACE} --selector {SELECTOR} --field-selector spec.nodeName={}",
        node.name
    ))?;
    wait_until("an agent that has listed all nodes", START_TIME_MAX, || {
        ensure!(agent::process(node)? != before, "it is that of before");
        ensure!(metric(node, "podwire_nodes_current")? == 1.0, "it has not heard the API server");
        let nodes = metric(node, "podwire_nodes")?;
        ensure!(nodes == size.nodes as f64, "it knows {nodes} nodes");
        Ok(())
    })
}

/// Waits until the agent knows all.
fn answer_and_create(cluster: &Cluster, size: Size) -> Result<()> {
    answer(&cluster.control)?;
    let bar = progress("node objects", size.nodes as u64);
    for stranger in strangers(cluster, size) {
        stranger.create_large(&cluster.control)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let nodes = cluster.nodes[0].node_map()?;
    wait_until("an agent that knows all nodes", KNOWN_TIME_MAX, || {
        for stranger in strangers(cluster, size) {
            for pod in stranger.pods() {
                let way = nodes.way(pod)?.with_context(|| format!("no way to {pod}"))?;
                ensure!(stranger.addresses().contains(&way), "{pod} is at {way}");
            }
        }
        Ok(())
    })
}
