//! What is on a node and in a runtime's room, to be compared with what was there before.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::node::Node;
use tests::room::Room;
use tests::wait::wait_until;

use crate::traces;

const GONE_TIME_MAX: Duration = Duration::from_secs(20);
/// What the names of chains for one container begin with: those of `portmap`, and of `firewall`, have a
/// hash behind it, while their fixed ones stay for good.
const CHAINS_OF_CONTAINERS: [&str; 3] = ["CNI-DN-", "CNI-SN-", "CNI-0"];

/// Everything that a container can leave behind.
#[derive(Debug)]
pub(crate) struct Left(BTreeSet<String>);

impl Left {
    /// Looks at a node, and at a room on it.
    pub(crate) fn now(node: &Node, room: Option<&Room>) -> Result<Self> {
        let mut found = traces::of_pods(node)?;
        let mut add = |what: &str, names: Vec<String>| {
            found.extend(names.iter().map(|name| format!("{what} {name}")));
        };
        add("interface", traces::interfaces(&node.namespace)?);
        add("rule", rules(node)?);
        if let Some(room) = room {
            add("mount", room.mounts()?);
            add("process", room.processes()?);
            add("cgroup", cgroups(room));
        }
        Ok(Self(found))
    }

    /// Waits until nothing else is there.
    pub(crate) fn wait_for(&self, node: &Node, room: Option<&Room>) -> Result<()> {
        wait_until("what was there before", GONE_TIME_MAX, || {
            let now = Self::now(node, room)?;
            let new: Vec<_> = now.0.difference(&self.0).collect();
            let gone: Vec<_> = self.0.difference(&now.0).collect();
            ensure!(new.is_empty() && gone.is_empty(), "new: {new:#?}, gone: {gone:#?}");
            Ok(())
        })
    }
}

/// The room's own group stays, empty, in each hierarchy, as it is not the runtime's. So does podman's for
/// the monitors of all containers.
fn cgroups(room: &Room) -> Vec<String> {
    let own = room.cgroup();
    let below = room.cgroups().into_iter().filter(|group| {
        ![own.clone(), format!("{own}/conmon")].iter().any(|name| group.ends_with(name))
    });
    below.map(|group| group.display().to_string()).collect()
}

/// Lines of the host's tables that belong to containers.
fn rules(node: &Node) -> Result<Vec<String>> {
    let mut command = node.namespace.command("nft");
    let rules = tests::command::run(command.args(["--stateless", "list", "ruleset"]))?;
    let pods = ["10.244.", "fd00:10:244:"].map(str::to_owned);
    let mut outside_of_ours = true;
    let mut found = Vec::new();
    for line in rules.lines() {
        if line.starts_with("table ") {
            outside_of_ours = !line.contains(" podwire ");
        }
        let of_pod = pods.iter().any(|pod| line.contains(pod.as_str()));
        let of_container = CHAINS_OF_CONTAINERS.iter().any(|chain| line.contains(chain));
        if outside_of_ours && (of_pod || of_container) {
            found.push(line.trim().to_owned());
        }
    }
    Ok(found)
}
