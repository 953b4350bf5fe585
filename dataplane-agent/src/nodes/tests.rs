//! Node files, good and bad.

use std::path::Path;

use super::*;
use crate::model::Encapsulation;

const TWO: &str = r#"[[node]]
name = "a"
addresses = ["192.168.1.11", "fd00:1::11"]
pod_cidrs = ["10.244.1.0/24", "fd00:10:244:1::/64"]

[[node]]
name = "b"
addresses = ["192.168.1.12", "fd00:1::12"]
pod_cidrs = ["10.244.2.0/24", "fd00:10:244:2::/64"]
"#;

fn parse_with(text: &str, network: &Network) -> Result<Vec<Arc<Node>>, String> {
    parse(Path::new("nodes.toml"), text, "a", network).map_err(|error| error.to_string())
}

fn direct() -> Network {
    Network { encapsulation: Encapsulation::Direct, ..Network::default() }
}

#[test]
fn a_good_file() {
    let nodes = parse_with(TWO, &direct()).unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[1].name, "b");
    assert_eq!(nodes[1].pod_cidrs[1].to_string(), "fd00:10:244:2::/64");
}

/// Each: what is replaced in the good file, and the words that the error must have.
const BAD: &[(&str, &str, &[&str])] = &[
    ("name = \"b\"", "nam = \"b\"", &["nodes.toml:7", "nam", "unknown field", "[[node]]"]),
    ("name = \"b\"", "", &["nodes.toml:6", "missing field `name`"]),
    ("name = \"b\"", "name = 5", &["nodes.toml:7: name", "invalid type"]),
    ("name = \"b\"", "name = \"\"", &["nodes.toml:7: node[1].name: is empty"]),
    ("name = \"b\"", "name = \"a\"", &["nodes.toml:7: node[1].name", "\"a\"", "line 2"]),
    ("name = \"b\"", "name = \"b", &["nodes.toml:7"]),
    ("name = \"a\"", "name = \"c\"", &["no node is called \"a\"", "b, c", "--node-name"]),
    ("\"192.168.1.12\"", "\"192.168.1.11\"", &[":8: node[1].addresses[0]", "\"a\" at line 3"]),
    ("\"192.168.1.12\"", "\"192.168.1.300\"", &[":8: node[1].addresses[0]", "not an IP address"]),
    ("\"192.168.1.12\"", "\"127.0.0.1\"", &["127.0.0.1 cannot be a node's address"]),
    ("\"192.168.1.12\"", "\"::ffff:192.168.1.12\"", &["IPv4-mapped", "write 192.168.1.12"]),
    ("\"192.168.1.12\"", "\"10.244.1.7\"", &[":8: node[1].addresses[0]", "inside the pod network"]),
    ("[\"192.168.1.12\", \"fd00:1::12\"]", "[]", &[":8: node[1].addresses: is empty"]),
    ("\"10.244.2.0/24\"", "\"10.244.2.0\"", &[":9: node[1].pod_cidrs[0]", "prefix length"]),
    (
        "\"10.244.2.0/24\"",
        "\"10.244.2.5/24\"",
        &["bits set behind the prefix: write 10.244.2.0/24"],
    ),
    (
        "\"10.244.2.0/24\"",
        "\"10.244.1.128/25\"",
        &[":9: node[1].pod_cidrs[0]", "overlaps 10.244.1.0/24 of \"a\" at line 4"],
    ),
    ("\"10.244.2.0/24\"", "\"10.244.2.0/31\"", &["too small", "/30"]),
    ("\"10.244.2.0/24\"", "\"169.254.0.0/24\"", &["169.254.0.0/16"]),
    ("\"10.244.2.0/24\", ", "", &[":7: node[1].name", "no IPv4 pod network"]),
    ("\"fd00:10:244:2::/64\"", "\"::ffff:10.244.2.0/120\"", &["IPv4-mapped", "::ffff:0:0/96"]),
    ("\"fd00:10:244:2::/64\"", "\"fd00:10:244:2::/127\"", &["too small", "/126"]),
    (
        "\"192.168.1.12\", \"fd00:1::12\"",
        "\"192.168.1.12\"",
        &[":7: node[1].name", "no IPv6 address", "vxlan"],
    ),
];

#[test]
fn bad_files_say_what_where_and_what_to_do() {
    for (from, to, words) in BAD {
        assert!(TWO.contains(from), "{from}");
        let error = parse_with(&TWO.replacen(from, to, 1), &direct()).expect_err(to);
        for word in *words {
            assert!(error.contains(word), "{to}: wanted {word:?} in:\n{error}");
        }
    }
}

#[test]
fn an_empty_file_and_a_missing_file() {
    let error = parse_with("", &direct()).unwrap_err();
    assert!(error.contains("nodes in the file: none"), "{error}");
    let mut missing = NodeFile::new("/nonexistent/nodes".into(), "a".to_owned(), direct());
    let error = missing.news().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/nodes: cannot be read"), "{error}");
}

#[test]
fn all_faults_are_told_in_the_order_of_lines() {
    let text = TWO.replace("\"192.168.1.12\"", "\"x\"").replace("10.244.1.0/24", "10.244.1.0/33");
    let error = parse_with(&text, &direct()).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("nodes.toml:4: node[0].pod_cidrs[0]"), "{error}");
    assert!(lines[1].starts_with("nodes.toml:8: node[1].addresses[0]"), "{error}");
}

#[test]
fn thousands_of_nodes_and_of_faults() {
    let node = |n: usize| {
        format!(
            "[[node]]\nname = \"n{n}\"\naddresses = [\"192.168.{}.{}\"]\npod_cidrs = \
             [\"10.{}.{}.0/24\"]\n",
            n / 250,
            n % 250 + 1,
            n / 250,
            n % 250
        )
    };
    let text: String = (0..5_000).map(node).collect();
    let started = std::time::Instant::now();
    let nodes = parse("n".as_ref(), &text, "n7", &direct()).unwrap();
    assert_eq!(nodes.len(), 5_000);
    let faults = parse("n".as_ref(), &text.repeat(2), "n7", &direct()).unwrap_err();
    assert!(started.elapsed().as_secs() < 10, "linear in the size of the file");
    let error = faults.to_string();
    assert_eq!(error.lines().count(), 21);
    assert!(error.ends_with("and 14980 more"), "{error}");
}

#[test]
fn cluster_networks_bound_the_pools() {
    let cluster = |list: &[&str]| Network {
        cluster_cidrs: list.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        ..direct()
    };
    assert!(parse_with(TWO, &cluster(&["10.244.0.0/16", "fd00:10:244::/48"])).is_ok());
    let error = parse_with(TWO, &cluster(&["10.244.0.0/16"])).unwrap_err();
    assert!(error.contains("outside the cluster's networks (10.244.0.0/16)"), "{error}");
    let error = parse_with(TWO, &cluster(&["10.0.0.0/8", "fd00::/16"])).unwrap_err();
    assert!(error.contains("fd00:1::11 lies inside the pod network fd00::/16"), "{error}");
}

#[test]
fn vxlan_needs_one_common_family() {
    let vxlan = Network { encapsulation: Encapsulation::Vxlan, ..Network::default() };
    let text = TWO.replace("\"192.168.1.12\", \"fd00:1::12\"", "\"192.168.1.12\"");
    assert!(parse_with(&text, &vxlan).is_ok());
    let text = text.replace("\"192.168.1.11\", ", "");
    let error = parse_with(&text, &vxlan).unwrap_err();
    assert!(error.contains("no addresses of the same family"), "{error}");
}
