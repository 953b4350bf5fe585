//! The agent: whether it runs, what it says, and what is attached.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use super::finding::Finding;
use super::node::{Agent, Node};
use crate::advice::Advice;
use crate::kernel::live::probe::features::Trial;
use crate::kernel::live::probe::pins::{self, PinnedLink, PinnedProgram};
use crate::kernel::{HOST_DEVICE, KernelError, LinkHook, TUNNEL_DEVICE};
use crate::model::is_pod_interface;
use crate::status::{SourceStatus, Status};

const START: &str = "start it: `podwire-agent run`, or the DaemonSet podwire";
/// More than these are not named one by one.
const NAMED_MAX: usize = 5;

/// `known` has what other rooms have found, in the agent's words.
pub(super) fn examine(node: &Node, known: &[String]) -> Vec<Finding> {
    let mut findings = match &node.agent {
        Agent::Runs(status) => of_status(status, known),
        Agent::Away { why, last_seen } => vec![away(why, *last_seen)],
        Agent::Silent(why) => vec![Finding::unseen("agent", why)],
    };
    findings.extend(pinned(node));
    findings
}

fn away(why: &str, last_seen: Option<Duration>) -> Finding {
    match last_seen {
        None => Finding::note("agent", format!("{why}; it has not run here yet")),
        Some(ago) => Finding::warning(
            "agent",
            Advice::new(
                format!(
                    "{why}; it was last alive {} s ago. Pods keep their network, new ones wait",
                    ago.as_secs()
                ),
                START,
            ),
        ),
    }
}

fn of_status(status: &Status, known: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let what = format!("version {}, process {}", status.version, status.pid);
    findings.push(if status.settled {
        Finding::ok("agent", format!("{what}: the data plane is as it should be"))
    } else {
        let found = format!("{what}: the data plane is not as it should be");
        Finding::failure("agent", Advice::new(found, "see its problems, and its log"))
    });
    if status.version != env!("CARGO_PKG_VERSION") {
        let found =
            format!("this check-up is of version {}, the agent is not", env!("CARGO_PKG_VERSION"));
        findings.push(Finding::note("agent", found));
    }
    findings.extend(status.source.as_ref().map(source));
    let big_tcp = status.node.big_tcp.as_ref();
    findings.extend(big_tcp.map(|chosen| Finding::ok("BIG TCP", chosen.to_string())));
    let new = status.problems.iter().filter(|problem| !known.contains(problem));
    findings.extend(
        new.map(|problem| Finding::new("agent's problem", super::Severity::Warning, problem, None)),
    );
    findings
}

fn source(source: &SourceStatus) -> Finding {
    let SourceStatus { name, nodes, current, age_seconds, trouble } = source;
    if *current {
        return Finding::ok("nodes", format!("{nodes} from {name}, as of now"));
    }
    let why = trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let found = format!("{nodes} from {name}, as of {age_seconds} s ago{why}");
    let remedy = "make it reachable again; forwarding goes on with the nodes that were known last";
    Finding::warning("nodes", Advice::new(found, remedy))
}

fn pinned(node: &Node) -> Vec<Finding> {
    let bpffs = &node.around.bpffs;
    let runs = node.status().is_some();
    if let Err(error) = pins::check(bpffs) {
        return vec![refused(&error)];
    }
    let (programs, links) = match (pins::programs(bpffs), pins::links(bpffs)) {
        (Ok(programs), Ok(links)) => (programs, links),
        (Err(error), _) | (_, Err(error)) => return vec![Finding::unseen("pins", error)],
    };
    let tags = node.trial.as_ref().map(Trial::tags).unwrap_or_default();
    let mut findings = vec![of_programs(bpffs, &programs, &tags, runs)];
    if !programs.is_empty() {
        // A pod may have gone since the devices were listed.
        let lives = |(ifindex, name, _): &(u32, String, LinkHook)| {
            if_nametoindex(name.as_str()) == Ok(*ifindex)
        };
        let wanted: Vec<_> = wanted(node).into_iter().filter(lives).collect();
        findings.push(attached(&wanted, &programs, &links, runs));
    }
    findings
}

/// What the agent would say, unless it is only this process that may not look.
fn refused(error: &KernelError) -> Finding {
    let why = error.source.to_string();
    if why.contains("Operation not permitted") || why.contains("Permission denied") {
        return Finding::unseen("pins", error);
    }
    Finding::failure("pins", Advice::new(&error.what, why))
}

fn of_programs(
    bpffs: &Path,
    pinned: &BTreeMap<&str, PinnedProgram>,
    tags: &BTreeMap<&str, u64>,
    agent_runs: bool,
) -> Finding {
    let (check, place) = ("pinned programs", bpffs.display());
    if pinned.is_empty() && !agent_runs {
        return Finding::ok(check, format!("none below {place} yet"));
    }
    if tags.is_empty() {
        let why = format!(
            "{} below {place}, but this build's cannot be loaded beside them",
            pinned.len()
        );
        return Finding::unseen(check, why);
    }
    let missing: Vec<&str> =
        tags.keys().filter(|name| !pinned.contains_key(*name)).copied().collect();
    if !missing.is_empty() {
        let found = format!("{} missing below {place}", missing.join(", "));
        let remedy = if agent_runs {
            "the agent pins them again within seconds; else see its log"
        } else {
            START
        };
        return Finding::warning(check, Advice::new(found, remedy));
    }
    let others: Vec<&str> = tags
        .iter()
        .filter(|(name, tag)| pinned.get(*name).is_some_and(|pinned| pinned.tag != **tag))
        .map(|(name, _)| *name)
        .collect();
    if others.is_empty() {
        return Finding::ok(
            check,
            format!("{} below {place}, as this build has them", pinned.len()),
        );
    }
    let found =
        format!("{} below {place} are of another build than this check-up", others.join(", "));
    Finding::note(
        check,
        format!("{found}; an agent of this build exchanges them, and no packet is lost"),
    )
}

/// Where a program of ours should be: index, name and hook.
fn wanted(node: &Node) -> Vec<(u32, String, LinkHook)> {
    let mut wanted = Vec::new();
    for device in node.devices.values().map(|device| &device.link).filter(|link| link.up) {
        let name = device.name.as_str();
        let hooks: &[LinkHook] = match name {
            _ if is_pod_interface(name) => &[LinkHook::Ingress, LinkHook::Egress],
            HOST_DEVICE => &[LinkHook::Egress],
            TUNNEL_DEVICE => &[LinkHook::Ingress],
            // Without an agent it is a guess which ones they are.
            _ if node.status().is_some() && node.uplinks.iter().any(|uplink| uplink == name) => {
                &[LinkHook::Ingress]
            }
            _ => &[],
        };
        wanted.extend(hooks.iter().map(|hook| (device.ifindex, name.to_owned(), *hook)));
    }
    wanted
}

fn attached(
    wanted: &[(u32, String, LinkHook)],
    programs: &BTreeMap<&str, PinnedProgram>,
    links: &[PinnedLink],
    agent_runs: bool,
) -> Finding {
    let check = "attached programs";
    let own: BTreeSet<u32> = programs.values().map(|program| program.id).collect();
    let is_there = |ifindex: u32, hook: LinkHook| {
        let mut links = links.iter().filter(|link| own.contains(&link.program));
        links.any(|link| (link.ifindex, link.hook) == (ifindex, hook))
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(ifindex, _, hook)| !is_there(*ifindex, *hook))
        .map(|(_, name, hook)| format!("{name} ({hook:?})").to_lowercase())
        .collect();
    if missing.is_empty() {
        return Finding::ok(check, format!("all {} hooks have theirs", wanted.len()));
    }
    let named: Vec<&str> = missing.iter().take(NAMED_MAX).map(String::as_str).collect();
    let found =
        format!("{} of {} hooks have none: {}", missing.len(), wanted.len(), named.join(", "));
    if agent_runs {
        let remedy = "the agent attaches them again within seconds; if this stays, see its log";
        return Finding::failure(check, Advice::new(found, remedy));
    }
    Finding::warning(check, Advice::new(found, START))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    const PINS: &str = "/sys/fs/bpf/podwire";

    #[test]
    fn an_agent_that_never_ran_is_no_trouble_and_one_that_is_away_is() {
        assert_eq!(away("no agent", None).state, Severity::Note);
        let finding = away("no agent", Some(Duration::from_secs(90)));
        assert_eq!(finding.state, Severity::Warning);
        assert!(finding.found.contains("90 s ago"), "{}", finding.found);
    }

    fn status() -> Status {
        let document = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "pid": 7, "abiVersion": 1, "settled": true,
            "source": { "name": "the Kubernetes API", "nodes": 3, "current": false, "ageSeconds": 42,
                "trouble": "connection refused" },
            "node": {
                "name": "a", "addresses": [], "podCidrs": [], "clusterCidrs": [],
                "encapsulation": "vxlan", "uplinks": ["eth0"], "podMtu": 1450
            },
            "pools": [], "pods": [], "peers": [], "programs": [], "counters": [], "drift": {},
            "problems": ["known", "new: do this"]
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn problems_that_nobody_else_has_found_are_lines() {
        let findings = of_status(&status(), &["known".to_owned()]);
        let problems: Vec<&Finding> =
            findings.iter().filter(|finding| finding.check == "agent's problem").collect();
        assert_eq!(problems.len(), 1);
        assert_eq!(
            (problems[0].found.as_str(), problems[0].state),
            ("new: do this", Severity::Warning)
        );
        let nodes = findings.iter().find(|finding| finding.check == "nodes").unwrap();
        assert_eq!(nodes.state, Severity::Warning);
        assert!(nodes.found.contains("42 s ago: connection refused"), "{}", nodes.found);
    }

    #[test]
    fn a_data_plane_that_is_not_as_it_should_be_fails() {
        let mut status = status();
        assert_eq!(of_status(&status, &[])[0].state, Severity::Ok);
        status.settled = false;
        status.version = "0.0.9".to_owned();
        let findings = of_status(&status, &[]);
        assert_eq!(findings[0].state, Severity::Failure);
        assert_eq!(findings[1].state, Severity::Note);
    }

    #[test]
    fn programs_are_compared_with_those_of_this_build() {
        let tags = BTreeMap::from([("pw_to_pod", 1), ("pw_from_pod", 2)]);
        let pin = |id, tag| PinnedProgram { id, tag };
        let all = BTreeMap::from([("pw_to_pod", pin(10, 1)), ("pw_from_pod", pin(11, 2))]);
        let judge =
            |pinned: &BTreeMap<_, _>, runs| of_programs(Path::new(PINS), pinned, &tags, runs);
        assert_eq!(judge(&all, true).state, Severity::Ok);
        assert_eq!(judge(&BTreeMap::new(), false).state, Severity::Ok);
        assert_eq!(judge(&BTreeMap::new(), true).state, Severity::Warning);
        assert_eq!(
            of_programs(Path::new(PINS), &all, &BTreeMap::new(), true).state,
            Severity::Note
        );
        let mut other = all.clone();
        other.insert("pw_to_pod", pin(12, 9));
        let finding = judge(&other, true);
        assert_eq!(finding.state, Severity::Note);
        assert!(finding.found.starts_with("pw_to_pod below"), "{}", finding.found);
    }

    #[test]
    fn a_hook_without_a_program_fails_while_the_agent_runs() {
        let programs = BTreeMap::from([("pw_from_net", PinnedProgram { id: 10, tag: 1 })]);
        let wanted = [(3, "eth0".to_owned(), LinkHook::Ingress)];
        let link = PinnedLink { ifindex: 3, hook: LinkHook::Ingress, program: 10 };
        let judge = |links: &[PinnedLink], runs| attached(&wanted, &programs, links, runs);
        assert_eq!(judge(&[link], true).state, Severity::Ok);
        let finding = judge(&[PinnedLink { program: 99, ..link }], true);
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.found.ends_with("eth0 (ingress)"), "{}", finding.found);
        assert_eq!(judge(&[], false).state, Severity::Warning);
    }
}
