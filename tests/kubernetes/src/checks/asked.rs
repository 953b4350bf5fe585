//! What agents answer to a person who asks.

use anyhow::{Context as _, Result, ensure};

use crate::agent::{self, NAMESPACE};
use crate::cluster::Cluster;

/// Those of the manifest, for the check-up.
const OPTIONS: [&str; 4] = [
    "--sysctl-dir=/host/proc/sys",
    "--cni-bin-dir=/opt/cni/bin",
    "--cni-conf-dir=/etc/cni/net.d",
    "--listen=[::]:9869",
];
/// What was found when the agents started.
const DOCTOR_LOGS: &str = "--namespace kube-system logs --selector app.kubernetes.io/name=podwire \
                           --container doctor --prefix --tail=-1";

/// What a person asks an agent in its pod, as docs/kubernetes.md has it.
pub(super) fn look(cluster: &Cluster) -> Result<String> {
    let mut lines = 0;
    let kubectl = &cluster.control.kubectl;
    for pod in agent::pods(kubectl)? {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        let ask = |words: &[&str]| kubectl.exec(NAMESPACE, name, words);
        let status = ask(&["/podwire-agent", "status"])?;
        ensure!(status.contains("the data plane is as it should be"), "{status}");
        let found = ask(&[&["/podwire-agent", "doctor"], &OPTIONS[..]].concat())?;
        let services = format!("kube-proxy, in {} mode", cluster.plan.proxy.name());
        ensure!(found.contains(&services), "{services} is not in {found}");
        lines += found.lines().count();
    }
    let logs = kubectl.run(DOCTOR_LOGS)?;
    let passed = logs.matches(" 0 failed, ").count();
    ensure!(passed == cluster.nodes.len(), "{passed} check-ups passed: {logs}");
    Ok(format!("{lines} lines, no failure"))
}
