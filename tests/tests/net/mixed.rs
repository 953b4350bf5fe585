//! Any verbs at once, of the same and of different containers: each does its part or says why not, and nothing is left.

use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::node::{CniCall, Node};
use tests::pod::Pod;

use super::parallel::{at_once, ping_first};
use super::{ipam, snapshot};

const PODS: usize = 3;
const AT_ONCE: u64 = 6;
const CALLS: usize = 15;

/// What a verb may say when others are at work: "try again", and what was there already, or is not as it was (999 says
/// `host-local`).
const MAY_FAIL: [(&str, &[u64]); 5] =
    [("ADD", &[11, 101]), ("DEL", &[]), ("CHECK", &[11, 102, 999]), ("GC", &[11]), ("STATUS", &[])];

/// A container, and the last result of its ADD.
struct Subject {
    pod: Pod,
    result: Mutex<Value>,
}

#[test]
fn with_addresses_of_the_pools() {
    mix(Node::cni_configuration, &["ADD", "ADD", "DEL", "CHECK", "GC", "STATUS"]);
}

/// `host-local` knows neither GC nor STATUS.
#[test]
fn with_addresses_of_a_delegated_plugin() {
    let configuration = |node: &Node| {
        let mut configuration = node.cni_configuration();
        configuration["cniVersion"] = "1.0.0".into();
        configuration["ipam"] = ipam::host_local_ranges(node, "1");
        configuration
    };
    mix(configuration, &["ADD", "ADD", "DEL", "CHECK"]);
}

fn mix(configuration: fn(&Node) -> Value, verbs: &[&str]) {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let configuration = configuration(node);
        let subject = || Ok(Subject { pod: node.bare_pod()?, result: Mutex::new(Value::Null) });
        let subjects: Vec<Subject> = (0..PODS).map(|_| subject()).collect::<Result<_>>()?;
        // `host-local` makes its directory once.
        let first = &subjects[0].pod;
        for verb in ["ADD", "DEL"] {
            call(first, verb, &configuration)?.map_err(|error| anyhow!("{verb}: {error}"))?;
        }
        let before = snapshot::of(node, first)?;
        at_once(0..AT_ONCE, |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..CALLS).try_for_each(|_| one(&subjects, verbs, &configuration, &mut random))
        })?;
        for Subject { pod, .. } in &subjects {
            let deleted = call(pod, "DEL", &configuration)?;
            deleted.map_err(|error| anyhow!("DEL: {error}"))?;
        }
        snapshot::ensure_same(&before, &snapshot::of(node, first)?)?;
        for Subject { pod, .. } in &subjects {
            let added = call(pod, "ADD", &configuration)?;
            let added = added.map_err(|error| anyhow!("ADD: {error}"))?;
            ping_first(node, &added)?;
            call(pod, "DEL", &configuration)?.map_err(|error| anyhow!("DEL: {error}"))?;
        }
        Ok(())
    });
}

/// Some call of some container.
fn one(
    subjects: &[Subject],
    verbs: &[&str],
    configuration: &Value,
    random: &mut fastrand::Rng,
) -> Result<()> {
    let subject = random.choice(subjects).context("a container")?;
    let verb = *random.choice(verbs).context("a verb")?;
    let mut configuration = configuration.clone();
    let result = || subject.result.lock().expect("nobody panicked");
    match verb {
        "CHECK" if result().is_null() => return Ok(()),
        "CHECK" => configuration["prevResult"] = result().clone(),
        "GC" => {
            let valid = subjects.iter().filter(|_| random.bool());
            let of = |s: &Subject| json!({"containerID": s.pod.container_id, "ifname": "eth0"});
            configuration["cni.dev/valid-attachments"] = valid.map(of).collect();
        }
        _ => {}
    }
    match call(&subject.pod, verb, &configuration)? {
        Ok(added) if verb == "ADD" => *result() = added,
        Ok(_) => {}
        Err(error) => {
            let may = MAY_FAIL.iter().find(|(of, _)| *of == verb).map_or(&[][..], |(_, may)| may);
            let code = error["code"].as_u64().context("a code")?;
            ensure!(may.contains(&code), "{verb}: {error}");
        }
    }
    Ok(())
}

fn call(pod: &Pod, verb: &str, configuration: &Value) -> Result<Result<Value, Value>> {
    let is_of_none = ["GC", "STATUS"].contains(&verb);
    let netns = if is_of_none { Default::default() } else { pod.netns() };
    let container_id = if is_of_none { "" } else { &pod.container_id };
    pod.node.cni_with(&CniCall { command: verb, container_id, netns: &netns }, configuration)
}
