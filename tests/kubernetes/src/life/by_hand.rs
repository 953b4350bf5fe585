//! An agent that somebody starts on a node with a kubeconfig, as docs/kubernetes.md has it for trying.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::binaries;
use harness::wait::wait_until;
use nix::sys::signal::Signal;

use crate::addresses::API;
use crate::certificates::ADMIN;
use crate::cluster::Cluster;
use crate::network::Network;
use crate::network::podwire::settings;

const TIME_MAX: Duration = Duration::from_secs(60);

/// In place of the last node's, which is away; with the settings of the others. It ends as by Ctrl-C.
pub(super) fn agent(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes.last().context("no node")?;
    let Network::Podwire(mode) = cluster.plan.network else {
        anyhow::bail!("no network with agents");
    };
    let kubeconfig = node.file("by-hand.kubeconfig");
    cluster.control.certificates.kubeconfig(&kubeconfig, &ADMIN)?;
    let mut words = vec!["run".to_owned(), "--kubernetes".to_owned()];
    words.extend(["--node-name".to_owned(), node.name.clone()]);
    words.extend(["--kubeconfig".to_owned(), kubeconfig.display().to_string()]);
    words.extend(settings(mode));
    let program = binaries::agent()?;
    let log = node.file("by-hand.log");
    let running = node.enclosure.spawn(&program, &words, &log)?;
    let wanted =
        format!("{} nodes from the Kubernetes API at {API}, as of now", cluster.nodes.len());
    let looked = wait_until("an agent that was started by hand", TIME_MAX, || {
        let status = node.run(&format!("{} status", program.display()))?;
        ensure!(status.contains(&wanted), "`{wanted}` is not in its status:\n{status}");
        Ok(())
    });
    looked.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    running.end(Signal::SIGINT)
}
