//! Cluster addresses, names, ports of nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wait::wait_until;

use super::NAMESPACE;
use super::client::{Kind, Party, Question, address_of, questions};
use super::objects::{LOCAL_NODE_PORT, MAPPED_PORT, NODE_PORT, PORT};
use crate::network::Network;
use crate::report::Report;
use crate::view::View;

/// kube-proxy has seen a new service within this time.
const RULES_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(view: &View<'_>, parties: &[Party], report: &mut Report) {
    let of = |kind: Kind| parties.iter().filter(move |party| party.kind == kind);
    for (name, kind) in [("pods", Kind::Pod), ("nodes", Kind::Node)] {
        report.check(&format!("cluster addresses from {name}, TCP and UDP"), || {
            cluster_addresses(view, &of(kind).collect::<Vec<_>>())
        });
        report.check(&format!("names of services from {name}"), || {
            names(view, &of(kind).collect::<Vec<_>>())
        });
    }
    let nodes: Vec<&Party> = of(Kind::Node).collect();
    for (what, port) in [("NodePort", NODE_PORT), ("hostPort (portmap)", MAPPED_PORT)] {
        for (name, kind) in [("world", Kind::World), ("pods", Kind::Pod), ("nodes", Kind::Node)] {
            if kind == Kind::World && view.world.is_none() {
                continue;
            }
            report.check(&format!("{what} from {name}, TCP and UDP"), || {
                ports(view, &of(kind).collect::<Vec<_>>(), &nodes, port)
            });
        }
    }
    let Some(world) = of(Kind::World).next() else { return };
    report.check("externalTrafficPolicy: Local keeps the world's address", || {
        let last = nodes.last().context("no node")?;
        let sees = |is_ipv6: bool| {
            world.addresses.iter().find(|address| address.contains(':') == is_ipv6).cloned()
        };
        ask(view, world, &questions(&last.addresses, LOCAL_NODE_PORT), &sees)
    });
}

/// Lets a party ask until kube-proxy has its rules. Each backend says whom it sees: for IPv4, and for IPv6, that is
/// known or of no interest.
fn ask(
    view: &View<'_>,
    party: &Party,
    questions: &[Question],
    sees: &dyn Fn(bool) -> Option<String>,
) -> Result<String> {
    wait_until("the rules of kube-proxy", RULES_TIME_MAX, || {
        let answers = party.ask(view, questions)?;
        for (question, answer) in questions.iter().zip(answers) {
            let context = || format!("{} to {question:?}", party.name);
            let seen = address_of(&answer).with_context(context)?;
            let wanted = sees(question.host.contains(':'));
            ensure!(wanted.as_ref().is_none_or(|it| *it == seen), "{}: seen as {seen}", context());
        }
        Ok(format!("{} answers", questions.len()))
    })
}

/// What docs/kubernetes.md says that backends see in place of the client: the address that a node has among the pods.
/// The reference plugin has another way.
fn gateway(view: &View<'_>, node: &str, is_ipv6: bool) -> Option<String> {
    if view.network == Network::Bridge {
        return None;
    }
    let member = view.members.iter().find(|member| member.name == node)?;
    let cidr = member.pod_cidrs.iter().find(|cidr| cidr.contains(':') == is_ipv6)?;
    let (network, _) = cidr.split_once('/')?;
    Some(match network.parse().ok()? {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + 1).to_string(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + 1).to_string(),
    })
}

fn cluster_addresses(view: &View<'_>, from: &[&Party]) -> Result<String> {
    let mut count = 0;
    for service in ["local", "remote"] {
        let object = view.kubectl.get(&format!("service {service} -n {NAMESPACE}"))?;
        let addresses = object["spec"]["clusterIPs"].as_array().context("clusterIPs")?;
        ensure!(addresses.len() == view.families(), "{service}: {addresses:?}");
        let addresses: Vec<String> =
            addresses.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect();
        let questions = questions(&addresses, 80);
        for party in from {
            ask(view, party, &questions, &|is_ipv6| gateway(view, &party.node, is_ipv6))?;
            count += questions.len();
        }
    }
    let from = match view.network {
        Network::Bridge => "",
        Network::Podwire(_) => ", from the address of the client's node",
    };
    Ok(format!("{count} answers{from}"))
}

fn names(view: &View<'_>, from: &[&Party]) -> Result<String> {
    for party in from {
        for name in ["local", "remote.podwire-e2e", "remote.podwire-e2e.svc.cluster.local"] {
            let url = format!("http://{name}/hostname");
            let answer = party.curl(view, &["--max-time", "20", &url])?;
            ensure!(answer.starts_with("pod"), "{} asked {name}: {answer}", party.name);
        }
    }
    Ok(format!("{} answers", from.len() * 3))
}

fn ports(view: &View<'_>, from: &[&Party], nodes: &[&Party], port: u16) -> Result<String> {
    let mut count = 0;
    for party in from {
        for node in nodes {
            let questions = questions(&node.addresses, port);
            // `portmap` leaves the client's address where the answer finds its way back.
            ask(view, party, &questions, &|is_ipv6| {
                if port == NODE_PORT { gateway(view, &node.node, is_ipv6) } else { None }
            })?;
            count += questions.len();
        }
    }
    ensure!(count > 0 && port != PORT, "nobody asked");
    Ok(format!("{count} answers"))
}
