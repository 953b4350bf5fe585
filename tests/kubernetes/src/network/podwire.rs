//! Podwire, as users deploy it: an image and one manifest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::cluster::{CLUSTER_CIDRS, Mode};
use harness::render::file;

use crate::containerd::Containerd;
use crate::kubectl::Kubectl;
use crate::node::Node;

const START_TIME_MAX: Duration = Duration::from_secs(60);
const MANIFEST: &str = include_str!("../../../../deploy/podwire.yaml");
const NAMESPACE: &str = "kube-system";
/// The arguments behind which those of this cluster come, of the check-up and of the agent.
const ARGUMENTS: [&str; 2] = ["            - doctor\n", "            - --kubernetes\n"];

/// Loads the image and applies the manifest; waits until an agent runs on every node.
pub(super) fn deploy(
    nodes: &[Node],
    kubectl: &Kubectl,
    containerd: Containerd,
    mode: Mode,
) -> Result<()> {
    nodes.iter().try_for_each(|node| import(node, containerd))?;
    match mode {
        // As README.md says it.
        Mode::Auto => {
            let shipped = file("deploy/podwire.yaml");
            kubectl.run(&format!("apply --filename {}", shipped.display()))?;
        }
        Mode::Direct | Mode::Vxlan => kubectl.apply_text(&manifest(mode)?)?,
    }
    kubectl.wait_for_pods(NAMESPACE, START_TIME_MAX)?;
    kubectl.run("--namespace kube-system rollout status daemonset/podwire").map(drop)
}

/// Loads the image.
pub(super) fn import(node: &Node, containerd: Containerd) -> Result<()> {
    containerd.import(node, &[image()?])
}

/// The shipped one, with this cluster's arguments.
fn manifest(mode: Mode) -> Result<String> {
    let lines = settings(mode).into_iter().map(|setting| format!("            - {setting}\n"));
    let ours: String = lines.collect();
    let mut manifest = MANIFEST.to_owned();
    for argument in ARGUMENTS {
        ensure!(manifest.matches(argument).count() == 1, "deploy/podwire.yaml has no {argument}");
        manifest = manifest.replace(argument, &[argument, &ours].concat());
    }
    Ok(manifest)
}

/// What the agents of this cluster are told.
pub(crate) fn settings(mode: Mode) -> Vec<String> {
    match mode {
        Mode::Auto => Vec::new(),
        Mode::Direct | Mode::Vxlan => {
            let cidrs = CLUSTER_CIDRS.map(|cidr| format!("--cluster-cidr={cidr}"));
            [format!("--encapsulation={}", mode.name())].into_iter().chain(cidrs).collect()
        }
    }
}

/// `PODWIRE_IMAGE`, or what `cargo xtask image` makes.
pub(crate) fn image() -> Result<PathBuf> {
    if let Some(archive) = std::env::var_os("PODWIRE_IMAGE") {
        return Ok(archive.into());
    }
    let own = std::env::current_exe().context("find this program")?;
    let archive = own.ancestors().nth(2).context("target")?.join("podwire-image.tar");
    ensure!(archive.exists(), "{} is missing: `cargo xtask image`", archive.display());
    Ok(archive)
}

pub(super) fn kept(node: &Node) -> Result<Vec<String>> {
    let files = super::files(node, "run/podwire/attachments");
    let mut kept: Vec<String> = files.into_iter().map(|name| format!("file {name}")).collect();
    let map = node.json("bpftool -j map dump pinned /sys/fs/bpf/podwire/maps/pw_pods")?;
    let entries = map.as_array().context("pw_pods")?.iter();
    kept.extend(entries.map(|entry| format!("entry {}", entry["formatted"]["key"])));
    kept.extend(
        super::files(node, "sys/fs/bpf/podwire/links")
            .into_iter()
            .map(|name| format!("link {name}")),
    );
    Ok(kept)
}
