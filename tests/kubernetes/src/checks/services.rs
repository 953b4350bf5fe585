//! Cluster addresses, names, ports of nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wait::wait_until;
use serde_json::Value;

use super::NAMESPACE;
use super::client::{Kind, Party, Question};
use super::matrix::bracketed;
use super::objects::{MAPPED_PORT, NODE_PORT, PORT};
use crate::cluster::Cluster;
use crate::report::Report;

/// kube-proxy has seen a new service within this time.
const RULES_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(cluster: &Cluster, parties: &[Party], report: &mut Report) {
    let of = |kind: Kind| parties.iter().filter(move |party| party.kind == kind);
    for (name, kind) in [("pods", Kind::Pod), ("nodes", Kind::Node)] {
        report.check(&format!("cluster addresses from {name}, TCP and UDP"), || {
            cluster_addresses(cluster, &of(kind).collect::<Vec<_>>())
        });
    }
    report.check("names of services from pods", || {
        names(cluster, &of(Kind::Pod).collect::<Vec<_>>())
    });
    let nodes: Vec<&Party> = of(Kind::Node).collect();
    for (what, port) in [("NodePort", NODE_PORT), ("hostPort (portmap)", MAPPED_PORT)] {
        for (name, kind) in [("world", Kind::World), ("pods", Kind::Pod), ("nodes", Kind::Node)] {
            report.check(&format!("{what} from {name}"), || {
                ports(cluster, &of(kind).collect::<Vec<_>>(), &nodes, port)
            });
        }
    }
}

fn cluster_addresses(cluster: &Cluster, from: &[&Party]) -> Result<String> {
    let mut questions = Vec::new();
    for service in ["local", "remote"] {
        let object = cluster.control.kubectl.get(&format!("service {service} -n {NAMESPACE}"))?;
        let addresses = object["spec"]["clusterIPs"].as_array().context("clusterIPs")?;
        ensure!(addresses.len() == 2, "{service}: {addresses:?}");
        for address in addresses.iter().filter_map(Value::as_str) {
            for (protocol, port) in [("http", 80), ("udp", 81)] {
                questions.push(Question { protocol, host: address.to_owned(), port });
            }
        }
    }
    for party in from {
        wait_until("the rules of kube-proxy", RULES_TIME_MAX, || {
            let answers = party.ask(cluster, &questions)?;
            for (question, answer) in questions.iter().zip(answers) {
                let is_good = answer.contains("responses");
                ensure!(is_good, "{} to {question:?}: {answer}", party.name);
            }
            Ok(())
        })?;
    }
    Ok(format!("{} answers", questions.len() * from.len()))
}

fn names(cluster: &Cluster, from: &[&Party]) -> Result<String> {
    for party in from {
        for name in ["local", "remote.podwire-e2e", "remote.podwire-e2e.svc.cluster.local"] {
            let url = format!("http://{name}/hostname");
            let answer = party.curl(cluster, &["--max-time", "20", &url])?;
            ensure!(answer.starts_with("pod"), "{} asked {name}: {answer}", party.name);
        }
    }
    Ok(format!("{} answers", from.len() * 3))
}

fn ports(cluster: &Cluster, from: &[&Party], nodes: &[&Party], port: u16) -> Result<String> {
    let mut count = 0;
    for party in from {
        for node in nodes {
            for address in &node.addresses {
                let url = format!("http://{}:{port}/hostname", bracketed(address));
                let answer = party
                    .curl(cluster, &["--max-time", "20", &url])
                    .with_context(|| format!("{} to {url}", party.name))?;
                ensure!(answer.starts_with("pod"), "{} to {url}: {answer}", party.name);
                count += 1;
            }
        }
    }
    ensure!(count > 0 && port != PORT, "nobody asked");
    Ok(format!("{count} answers"))
}
