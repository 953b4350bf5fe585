//! What must hold while parts of the cluster are exchanged, killed or away: no packet of a pod is lost, and
//! nothing is left.

mod agents;
mod away;
mod by_hand;
mod odd;
mod pods;
mod symptoms;

use anyhow::{Context as _, Result};
use harness::flow::nothing_is_lost;

use crate::cluster::Cluster;
use crate::pod::Pod;
use crate::report::Report;

/// How often agents are killed.
const KILLS: usize = 20;

/// Makes pods, lets packets flow between them, and disturbs.
pub(crate) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let before = cluster.kept().context("before the first pod")?;
    let mut started = Vec::new();
    let is_up = report.check("pods whose packets are counted", || {
        started = pods::start(cluster)?;
        Ok(format!("{} of them", started.len()))
    });
    if is_up {
        disturb(cluster, &started, report);
    }
    report.check("nothing of these pods is left", || {
        pods::remove(cluster)?;
        cluster.wait_until_kept(&before)?;
        Ok("interfaces, files, entries and links are gone".to_owned())
    });
    report.check("a node is deleted and comes back", || away::node_object(cluster));
    report.check("a node starts again, with nothing of before", || away::reboot(cluster));
    if report.failed() > 0 {
        // The next step takes those of the agents away.
        cluster.save_logs()?;
    }
    report.check("uninstalled, nothing of Podwire is left", || agents::uninstall(cluster));
    Ok(())
}

fn disturb(cluster: &mut Cluster, pods: &[Pod], report: &mut Report) {
    let flows = pods::flows(pods);
    let mut look = |what: &str, work: &mut dyn FnMut(&mut Cluster) -> Result<String>| {
        report.check(what, || {
            let (found, packets) = nothing_is_lost(&flows, || work(cluster))?;
            Ok(format!("{found}; {packets} packets, none lost"))
        })
    };
    look("a new image is rolled out", &mut |cluster| {
        agents::nodes_stay_ready(cluster, || agents::roll(cluster))
    });
    look("agents are killed while pods come and go", &mut |cluster| {
        agents::nodes_stay_ready(cluster, || agents::kill(cluster, KILLS))
    });
    look("the API server is away for a minute", &mut |cluster| away::api_server(cluster, pods));
    look("kubelets and containerd restart", &mut |cluster| away::services(cluster));
    look("node objects are incomplete or overlap", &mut |cluster| odd::nodes(cluster, pods));
    look("what people look at tells, and the agents are taken away", &mut |cluster| {
        Ok(format!("{}; {}", symptoms::agents(cluster)?, symptoms::no_agents(cluster)?))
    });
}
