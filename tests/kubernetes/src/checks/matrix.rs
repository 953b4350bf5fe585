//! Everybody asks everybody, in both families, by TCP and UDP.

use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::client::{Kind, Party, address_of};
use crate::report::Report;
use crate::view::View;

/// A group of ways: who, whom, and whether both are on one node.
type Way = (Kind, Kind, bool);

const WAYS: [(&str, Way); 9] = [
    ("pod to pod, one node, no NAT", (Kind::Pod, Kind::Pod, true)),
    ("pod to pod, across nodes, no NAT", (Kind::Pod, Kind::Pod, false)),
    ("pod to its own node", (Kind::Pod, Kind::Node, true)),
    ("pod to another node", (Kind::Pod, Kind::Node, false)),
    ("node (host network) to its own pod", (Kind::Node, Kind::Pod, true)),
    ("node (host network) to a remote pod", (Kind::Node, Kind::Pod, false)),
    ("node to node", (Kind::Node, Kind::Node, false)),
    ("pod to the world", (Kind::Pod, Kind::World, false)),
    ("node to the world", (Kind::Node, Kind::World, false)),
];

/// Something that a pod has: larger than any buffer on the way.
const FILE: &str = "file=@/bin/bash";

pub(super) fn run(view: &View<'_>, parties: &[Party], report: &mut Report) {
    for (name, way) in WAYS {
        if way.1 == Kind::World && view.world.is_none() {
            continue;
        }
        report.check(&format!("{name}, TCP and UDP"), || all(view, parties, way));
    }
    for (name, way) in &WAYS[..2] {
        report.check(&format!("{name}, a megabyte"), || uploads(view, parties, *way));
    }
}

fn is_on(way: Way, from: &Party, to: &Party) -> bool {
    let is_same = from.node == to.node;
    from.name != to.name && (from.kind, to.kind, is_same) == way
}

/// Lets all ask at the same time.
fn all(view: &View<'_>, parties: &[Party], way: Way) -> Result<String> {
    let counts: Result<Vec<usize>> = thread::scope(|scope| {
        let asked: Vec<_> = parties
            .iter()
            .filter(|from| from.kind == way.0)
            .map(|from| scope.spawn(move || ask_each(view, parties, way, from)))
            .collect();
        let joined = asked
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    });
    let count: usize = counts?.into_iter().sum();
    ensure!(count > 0, "nobody was asked");
    Ok(format!("{count} answers"))
}

fn ask_each(view: &View<'_>, parties: &[Party], way: Way, from: &Party) -> Result<usize> {
    let asked: Vec<&Party> = parties.iter().filter(|to| is_on(way, from, to)).collect();
    let questions: Vec<_> = asked.iter().flat_map(|to| to.questions()).collect();
    if questions.is_empty() {
        return Ok(0);
    }
    let answers = from.ask(view, &questions).with_context(|| from.name.clone())?;
    for (question, answer) in questions.iter().zip(&answers) {
        let context = || format!("{} to {} {}", from.name, question.protocol, question.host);
        let seen = address_of(answer).with_context(context)?;
        if (way.0, way.1) == (Kind::Pod, Kind::Pod) {
            ensure!(from.addresses.contains(&seen), "{}: seen as {seen}", context());
        }
    }
    Ok(questions.len())
}

fn uploads(view: &View<'_>, parties: &[Party], way: Way) -> Result<String> {
    let mut count = 0;
    for from in parties {
        for to in parties.iter().filter(|to| is_on(way, from, to)) {
            for address in &to.addresses {
                let url = format!("http://{}:{}/upload", bracketed(address), to.port);
                let answer = from.curl(view, &["--max-time", "20", "--form", FILE, &url])?;
                let context = format!("{} to {address}: {answer}", from.name);
                ensure!(answer.contains("/uploads/"), "{context}");
                count += 1;
            }
        }
    }
    ensure!(count > 0, "nobody sent");
    Ok(format!("{count} files"))
}

/// An address as it stands in a URL.
pub(super) fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
