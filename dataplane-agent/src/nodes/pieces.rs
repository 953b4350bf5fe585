//! Reads a node file again and again, one node at a time: of thousands of nodes mostly one has changed, and the text
//! of all of them is larger than what they say.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::validate::{check, check_alone};
use super::{Fault, NodeFileError, Place, RawFile, RawNode, parse};
use crate::model::{Network, Node};

/// Where a node begins, at the begin of a line.
const HEADER: &[u8] = b"[[node]]";

/// A node file, and what it said the last time.
#[derive(Debug)]
pub struct NodeFile {
    file: PathBuf,
    own_name: String,
    network: Network,
    hasher: RandomState,
    /// Nodes that are good by themselves, by the hash of their text.
    known: HashMap<u64, Arc<Node>>,
    /// Of all that was read, or of why it could not be.
    last: Option<u64>,
}

/// What a node file says.
type Content = Result<Vec<Arc<Node>>, NodeFileError>;

impl NodeFile {
    /// Nothing is read yet.
    pub fn new(file: PathBuf, own_name: String, network: Network) -> Self {
        let (hasher, known) = (RandomState::new(), HashMap::new());
        Self { file, own_name, network, hasher, known, last: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// What it says now, good or bad; none when that was told already.
    pub fn news(&mut self) -> Option<Content> {
        let read = File::open(&self.file).and_then(|file| self.read(BufReader::new(file)));
        let (hash, nodes) = match &read {
            Ok((hash, nodes)) => (*hash, nodes.as_ref()),
            Err(error) => (self.hasher.hash_one(error.to_string()), None),
        };
        if self.last.replace(hash) == Some(hash) {
            return None;
        }
        if let Some(nodes) = nodes.filter(|nodes| self.is_good(nodes)) {
            return Some(Ok(nodes.clone()));
        }
        // All at once, which tells what is wrong, and where.
        let whole = std::fs::read_to_string(&self.file).map_err(|error| self.unreadable(&error));
        Some(whole.and_then(|text| parse(&self.file, &text, &self.own_name, &self.network)))
    }

    /// The hash of the text, and its nodes; none when it is not a row of nodes that are good by themselves.
    fn read(&mut self, mut from: impl BufRead) -> io::Result<(u64, Option<Vec<Arc<Node>>>)> {
        let mut known = HashMap::new();
        let (mut hashes, mut nodes) = (Vec::new(), Some(Vec::new()));
        let mut piece = Vec::new();
        loop {
            let start = piece.len();
            let is_end = from.read_until(b'\n', &mut piece)? == 0;
            let begins = piece.get(start..).is_some_and(|line| line.starts_with(HEADER));
            if !is_end && !begins {
                continue;
            }
            // All in front of this line is a piece.
            let next = piece.split_off(start);
            let hash = self.hasher.hash_one(&piece);
            hashes.push(hash);
            nodes = nodes.and_then(|mut nodes| {
                match self.known.get(&hash) {
                    Some(node) => nodes.push(Arc::clone(node)),
                    None => nodes.extend(node_of(&piece, &self.network)?.map(Arc::new)),
                }
                Some(nodes)
            });
            if let Some(node) = nodes.as_ref().and_then(|nodes| nodes.last()) {
                known.insert(hash, Arc::clone(node));
            }
            if is_end {
                break;
            }
            piece = next;
        }
        self.known = known;
        Ok((self.hasher.hash_one(&hashes), nodes))
    }

    /// Whether they contradict neither each other nor the settings.
    fn is_good(&self, nodes: &[Arc<Node>]) -> bool {
        let mut faults = Vec::new();
        let place = |_| Place { line: 0, field: String::new() };
        check(nodes, &self.own_name, &self.network, true, &place, &mut faults);
        faults.is_empty()
    }

    fn unreadable(&self, error: &io::Error) -> NodeFileError {
        let what = format!(
            "cannot be read: {error}; restore it, or name an existing file in --nodes-file"
        );
        let faults = vec![Fault { line: None, field: String::new(), what }];
        NodeFileError { file: self.file.clone(), faults }
    }
}

/// The node of a piece that begins with one, or what stands before the first. None when it is neither, or bad:
/// where the text was cut inside of a value, the piece before it is bad, too.
fn node_of(piece: &[u8], network: &Network) -> Option<Option<Node>> {
    let text = std::str::from_utf8(piece).ok()?;
    if !piece.starts_with(HEADER) {
        return toml::from_str(text).ok().map(|Nothing {}| None);
    }
    let raw: RawFile = toml::from_str(text).ok()?;
    let [raw] = <[RawNode; 1]>::try_from(raw.node).ok()?;
    let node = plain(raw)?;
    let mut is_good = true;
    check_alone(&node, network, |_, _| is_good = false);
    is_good.then_some(Some(node))
}

/// Comments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn plain(raw: RawNode) -> Option<Node> {
    let addresses = raw.addresses.into_inner();
    let pod_cidrs = raw.pod_cidrs.into_inner();
    if addresses.is_empty() || pod_cidrs.is_empty() {
        return None;
    }
    let addresses = addresses.iter().map(|text| text.get_ref().parse().ok());
    let pod_cidrs = pod_cidrs.iter().map(|text| text.get_ref().parse().ok());
    Some(Node {
        name: raw.name.into_inner(),
        addresses: addresses.collect::<Option<_>>()?,
        pod_cidrs: pod_cidrs.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const A: &str = "[[node]]\nname = \"a\"\naddresses = [\"192.168.1.11\"]\n\
                     pod_cidrs = [\"10.244.1.0/24\"]\n";
    const B: &str = "\n[[node]] # of a comment\r\nname = \"b\"\naddresses = [\n\"192.168.1.12\"\n]\n\
                     pod_cidrs = [\"10.244.2.0/24\"]";

    fn node_file(text: &str) -> (TempDir, NodeFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodes.toml");
        fs::write(&file, text).unwrap();
        (directory, NodeFile::new(file, "a".to_owned(), Network::default()))
    }

    fn names(content: Option<Content>) -> Vec<String> {
        content.unwrap().unwrap().iter().map(|node| node.name.clone()).collect()
    }

    /// What is said of a text, as a whole and in pieces.
    fn both(text: &str) -> (Content, Option<Vec<Arc<Node>>>) {
        let (_directory, mut file) = node_file(text);
        let pieces = file.read(text.as_bytes()).unwrap().1;
        (file.news().unwrap(), pieces.filter(|nodes| file.is_good(nodes)))
    }

    #[test]
    fn pieces_say_what_the_whole_says() {
        let head = "# nodes\n\n";
        let multiline = "\"\"\"\n[[node]]\nname = \"\"\"";
        let last = "[[node]]\nname = \"c\"\naddresses = [\"192.168.1.13\"]\npod_cidrs = [\"10.244.3.0/24\"]\n";
        for (text, is_in_pieces) in [
            (format!("{A}{B}"), true),
            (format!("{head}{A}{B}\n"), true),
            (format!("\u{feff}{A}"), false),
            (format!("{A} {last}"), false),
            (format!("{A}[[ node ]]{}", last.trim_start_matches("[[node]]")), false),
            (format!("{A}{}", last.replace("\"c\"", multiline)), false),
            ("node = [ { name = \"a\", addresses = [\"192.168.1.11\"], pod_cidrs = [\"10.244.1.0/24\"] } ]".to_owned(), false),
        ] {
            let (whole, pieces) = both(&text);
            let whole = whole.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(pieces.is_some(), is_in_pieces, "{text}");
            assert!(pieces.is_none_or(|pieces| pieces == whole), "{text}");
            assert_eq!(parse("n".as_ref(), &text, "a", &Network::default()).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_bad_is_bad_in_pieces() {
        for (text, what) in [
            (String::new(), "no node is called"),
            (B.to_owned(), "no node is called"),
            (format!("{A}{A}"), ":6: node[1].name: \"a\" is also the name"),
            (format!("{A}[[node]]x\n"), ":5"),
            (format!("{A}[[node]]\n"), ":5: missing field"),
            (format!("x = 1\n{A}"), ":1: x: unknown field"),
            (format!("{A}{}", B.replace("10.244.2.0/24", "10.244.2.1/24")), "bits set behind"),
            (
                format!("{A}{}", B.replace("10.244.2.0/24", "10.244.1.0/25")),
                "overlaps 10.244.1.0/24",
            ),
            (format!("{A}{}", B.replace("\"10.244.2.0/24\"", "")), "is empty"),
            (format!("{A}{}", B.replace("192.168.1.12", "x")), "not an IP address"),
            ("node = []\n".to_owned() + A, ":2"),
        ] {
            let (whole, pieces) = both(&text);
            let error = whole.expect_err(&text).to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(pieces, None, "{text}");
        }
        let (_directory, mut file) = node_file("");
        fs::write(&file.file, b"\xff").unwrap();
        assert!(file.news().unwrap().unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn each_content_is_told_once_and_what_has_not_changed_is_kept() {
        let (_directory, mut file) = node_file(&format!("{A}{B}"));
        let first = file.news().unwrap().unwrap();
        assert_eq!(file.news(), None);
        fs::write(&file.file, format!("# more\n{A}{}", B.replace("1.12", "1.13"))).unwrap();
        let second = file.news().unwrap().unwrap();
        assert!(Arc::ptr_eq(&first[0], &second[0]) && first[1] != second[1]);
        assert_eq!(file.known.len(), 2);
        for bad in ["x", A.trim_start_matches("[[node]]")] {
            fs::write(&file.file, bad).unwrap();
            assert!(file.news().unwrap().is_err());
            assert_eq!(file.news(), None);
        }
        fs::remove_file(&file.file).unwrap();
        let error = file.news().unwrap().unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("restore it"), "{error}");
        assert_eq!(file.news(), None);
        fs::write(&file.file, format!("{B}\n{A}")).unwrap();
        assert_eq!(names(file.news()), ["b", "a"]);
    }
}
