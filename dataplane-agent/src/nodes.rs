//! Which nodes there are, their addresses and their pod networks: from a file, which is read here, or from
//! the Kubernetes API.

pub(crate) mod changes;
pub mod follow;
pub mod kubernetes;
mod pieces;
pub mod source;
mod validate;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

pub use self::pieces::NodeFile;
pub(crate) use self::validate::cidr_fault;
use self::validate::{Spot, check, check_alone};
use crate::model::{Network, Node};

/// One mistake in a large file may have thousands of consequences.
const FAULTS_SHOWN: usize = 20;

/// What is wrong with a node file: all of it, not only the first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NodeFileError {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for NodeFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().take(FAULTS_SHOWN).enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, ":{line}")?;
            }
            if !fault.field.is_empty() {
                write!(f, ": {}", fault.field)?;
            }
            write!(f, ": {}", fault.what)?;
        }
        let more = self.faults.len().saturating_sub(FAULTS_SHOWN);
        if more > 0 {
            write!(f, "\n{}: and {more} more", self.file.display())?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line in the file, from 1; none where the fault is that something is missing.
    pub line: Option<usize>,
    /// The field, as in `node[2].pod_cidrs[1]`.
    pub field: String,
    /// What is wrong and what to do.
    pub what: String,
}

/// Checks the text of a node file.
///
/// # Errors
/// When it is not a node file, or its nodes contradict each other or the settings.
pub fn parse(
    file: &Path,
    text: &str,
    own_name: &str,
    network: &Network,
) -> Result<Vec<Arc<Node>>, NodeFileError> {
    let result = match toml::from_str::<RawFile>(text) {
        Ok(raw) => resolve(text, raw, own_name, network),
        Err(error) => Err(vec![syntax_fault(text, &error)]),
    };
    result.map_err(|mut faults| {
        faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        NodeFileError { file: file.to_owned(), faults }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    node: Vec<RawNode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: Spanned<String>,
    addresses: Spanned<Vec<Spanned<String>>>,
    pod_cidrs: Spanned<Vec<Spanned<String>>>,
}

/// Where the parts of a node stand that are well formed.
struct Places {
    name: Place,
    addresses: Vec<Place>,
    pod_cidrs: Vec<Place>,
}

/// A line, and the field there.
#[derive(Clone, Debug)]
struct Place {
    line: usize,
    field: String,
}

impl Place {
    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { line: Some(self.line), field: self.field.clone(), what: what.into() }
    }
}

fn syntax_fault(text: &str, error: &toml::de::Error) -> Fault {
    let line = error.span().map(|span| Lines::of(text).of_span(&span));
    let mut what = error.message().trim().replace('\n', "; ");
    if what.contains("unknown field") || what.contains("missing field") {
        what.push_str("; a node is: [[node]], name = \"a\", addresses = [\"192.168.1.11\"], ");
        what.push_str("pod_cidrs = [\"10.244.1.0/24\"]");
    }
    // The field is in the message where serde knows it; what the line says helps where it does not.
    let field = line
        .and_then(|line| text.lines().nth(line.saturating_sub(1)))
        .and_then(|line| line.split_once('='))
        .map(|(key, _)| key.trim().to_owned())
        .unwrap_or_default();
    Fault { line, field, what }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(at, _)| at).collect())
    }

    /// The line, from 1, in which a span begins.
    fn of_span(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|end| *end < span.start).saturating_add(1)
    }

    fn place<T>(&self, spanned: &Spanned<T>, field: String) -> Place {
        Place { line: self.of_span(&spanned.span()), field }
    }
}

fn resolve(
    text: &str,
    raw: RawFile,
    own_name: &str,
    network: &Network,
) -> Result<Vec<Arc<Node>>, Vec<Fault>> {
    let lines = Lines::of(text);
    let mut faults = Vec::new();
    let (mut nodes, mut places) = (Vec::new(), Vec::new());
    for (at, node) in raw.node.into_iter().enumerate() {
        let (addresses, of_addresses) = list(&lines, at, "addresses", node.addresses, &mut faults);
        let (pod_cidrs, of_cidrs) = list(&lines, at, "pod_cidrs", node.pod_cidrs, &mut faults);
        places.push(Places {
            name: lines.place(&node.name, format!("node[{at}].name")),
            addresses: of_addresses,
            pod_cidrs: of_cidrs,
        });
        nodes.push(Arc::new(Node { name: node.name.into_inner(), addresses, pod_cidrs }));
    }
    let place = |spot| {
        let place = match spot {
            Spot::Name(node) => places.get(node).map(|places| &places.name),
            Spot::Address(node, at) => places.get(node).and_then(|places| places.addresses.get(at)),
            Spot::PodCidr(node, at) => places.get(node).and_then(|places| places.pod_cidrs.get(at)),
        };
        place.cloned().unwrap_or_else(|| Place { line: 0, field: "node".to_owned() })
    };
    // A family may only seem to be missing because its address could not be read.
    let is_complete = faults.is_empty();
    for (at, node) in nodes.iter().enumerate() {
        check_alone(node, network, |spot, what| faults.push(place(spot.of(at)).fault(what)));
    }
    check(&nodes, own_name, network, is_complete, &place, &mut faults);
    if faults.is_empty() { Ok(nodes) } else { Err(faults) }
}

/// Parses each element of a list; an empty list is a fault.
fn list<T: std::str::FromStr>(
    lines: &Lines,
    node: usize,
    name: &str,
    raw: Spanned<Vec<Spanned<String>>>,
    faults: &mut Vec<Fault>,
) -> (Vec<T>, Vec<Place>) {
    let place = lines.place(&raw, format!("node[{node}].{name}"));
    let (example, thing) = match name {
        "addresses" => ("192.168.1.11", "an IP address"),
        _ => ("10.244.1.0/24", "a network with prefix length"),
    };
    if raw.get_ref().is_empty() {
        faults.push(place.fault(format!("is empty: give {thing}, such as \"{example}\"")));
    }
    let (mut parsed, mut places) = (Vec::new(), Vec::new());
    for (at, element) in raw.into_inner().into_iter().enumerate() {
        let place = lines.place(&element, format!("node[{node}].{name}[{at}]"));
        match element.get_ref().parse() {
            Ok(value) => {
                parsed.push(value);
                places.push(place);
            }
            Err(_) => faults.push(place.fault(format!(
                "\"{}\" is not {thing}: write it as in \"{example}\"",
                element.get_ref()
            ))),
        }
    }
    (parsed, places)
}

#[cfg(test)]
mod tests;
