//! Node objects, good and bad, as a table.

use super::*;
use crate::nodes::kubernetes::seen::SeenAddress;

/// Name, age (smaller is older), addresses (of type InternalIP unless they begin with another), networks.
type Row = (&'static str, i64, &'static [&'static str], &'static [&'static str]);

const OWN: Row = ("a", 1, &["192.168.1.11"], &["10.244.1.0/24"]);
const OTHER: Row = ("b", 2, &["192.168.1.12"], &["10.244.2.0/24"]);

fn seen(rows: &[Row]) -> BTreeMap<String, Seen> {
    rows.iter()
        .map(|(name, created, addresses, cidrs)| {
            let address = |text: &&str| {
                let (kind, text) = text.split_once('=').unwrap_or(("InternalIP", text));
                SeenAddress { r#type: kind.to_owned(), address: text.to_owned() }
            };
            let seen = Seen {
                created: *created,
                addresses: addresses.iter().map(address).collect(),
                pod_cidrs: cidrs.iter().map(ToString::to_string).collect(),
                ..Seen::default()
            };
            ((*name).to_owned(), seen)
        })
        .collect()
}

fn mode(encapsulation: Encapsulation) -> Network {
    Network { encapsulation, ..Network::default() }
}

fn show(nodes: &[Arc<Node>]) -> Vec<String> {
    let join = |list: Vec<String>| list.join(",");
    let show = |node: &Arc<Node>| {
        let addresses = node.addresses.iter().map(ToString::to_string).collect();
        let cidrs = node.pod_cidrs.iter().map(ToString::to_string).collect();
        format!("{} {} {}", node.name, join(addresses), join(cidrs))
    };
    nodes.iter().map(show).collect()
}

/// Each: the other nodes beside `OWN`, what comes out for them, and words of the doubts in their order.
const OTHERS: &[(&[Row], &[&str], &[&str])] = &[
    (&[OTHER], &["b 192.168.1.12 10.244.2.0/24"], &[]),
    (&[], &[], &[]),
    // Without a pod network, or with one that cannot be.
    (&[("b", 2, &["192.168.1.12"], &[])], &[], &["node b: it has no pod network yet"]),
    (&[("b", 2, &["192.168.1.12"], &["x"])], &[], &["node b: \"x\" is no pod network"]),
    (&[("b", 2, &["192.168.1.12"], &["10.244.2.5/24"])], &[], &["write 10.244.2.0/24"]),
    (
        &[("b", 2, &["192.168.1.12"], &["10.244.2.0/24", "fe80::/64"])],
        &["b 192.168.1.12 10.244.2.0/24"],
        &["node b: its pod network is left out: fe80::/64 overlaps fe80::/10"],
    ),
    // Two networks of one node that overlap.
    (
        &[("b", 2, &["192.168.1.12"], &["10.244.2.0/24", "10.244.2.0/25"])],
        &["b 192.168.1.12 10.244.2.0/24"],
        &["node b: 10.244.2.0/25 overlaps its own 10.244.2.0/24"],
    ),
    // Overlapping networks of two nodes: the older keeps, then the first by name.
    (
        &[
            ("b", 3, &["192.168.1.12"], &["10.244.2.0/24"]),
            ("c", 2, &["192.168.1.13"], &["10.244.2.0/23"]),
        ],
        &["c 192.168.1.13 10.244.2.0/23"],
        &["node b: its pod network 10.244.2.0/24 overlaps 10.244.2.0/23 of node c, which is older"],
    ),
    (
        &[
            ("c", 2, &["192.168.1.13"], &["10.244.2.0/24"]),
            ("b", 2, &["192.168.1.12"], &["10.244.2.0/24"]),
        ],
        &["b 192.168.1.12 10.244.2.0/24"],
        &["node c: its pod network 10.244.2.0/24 overlaps 10.244.2.0/24 of node b"],
    ),
    (
        &[
            ("b", 0, &["192.168.1.12"], &["10.244.3.0/24"]),
            ("c", 5, &["192.168.1.13"], &["10.244.0.0/16"]),
        ],
        &["b 192.168.1.12 10.244.3.0/24"],
        &["node c: its pod network 10.244.0.0/16 overlaps"],
    ),
    (
        &[("b", 9, &["192.168.1.12"], &["10.244.1.0/24", "10.244.9.0/24"])],
        &["b 192.168.1.12 10.244.9.0/24"],
        &["overlaps 10.244.1.0/24 of node a"],
    ),
    // Addresses: none, of other kinds only, unusable, more than two, twice the same.
    (
        &[("b", 2, &[], &["10.244.2.0/24"])],
        &[],
        &["node b: it has no InternalIP (no address at all)"],
    ),
    (
        &[("b", 2, &["Hostname=b", "ExternalIP=1.2.3.4"], &["10.244.2.0/24"])],
        &[],
        &["node b: it has no InternalIP (only ExternalIP, Hostname)"],
    ),
    (
        &[("b", 2, &["Hostname=b", "192.168.1.12"], &["10.244.2.0/24"])],
        &["b 192.168.1.12 10.244.2.0/24"],
        &[],
    ),
    (&[("b", 2, &["b.example"], &["10.244.2.0/24"])], &[], &["\"b.example\" is no address"]),
    (
        &[("b", 2, &["127.0.0.1"], &["10.244.2.0/24"])],
        &[],
        &["127.0.0.1 cannot be a node's address"],
    ),
    (
        &[(
            "b",
            2,
            &["192.168.1.12", "192.168.2.12", "fd00:1::12", "192.168.1.12"],
            &["10.244.2.0/24"],
        )],
        &["b 192.168.1.12,192.168.2.12,fd00:1::12 10.244.2.0/24"],
        &[],
    ),
    (
        &[("b", 2, &["10.244.2.7", "192.168.1.12"], &["10.244.2.0/24"])],
        &["b 192.168.1.12 10.244.2.0/24"],
        &["10.244.2.7 lies inside the pod network"],
    ),
    // An address that two claim: this node's is its own; of others both keep it.
    (&[("b", 2, &["192.168.1.11"], &["10.244.2.0/24"])], &[], &["192.168.1.11 is this node's"]),
    (
        &[OTHER, ("c", 3, &["192.168.1.12"], &["10.244.3.0/24"])],
        &["b 192.168.1.12 10.244.2.0/24", "c 192.168.1.12 10.244.3.0/24"],
        &["node c: its InternalIP 192.168.1.12 is also that of node b"],
    ),
    // No family in common.
    (&[("b", 2, &["fd00:1::12"], &["10.244.2.0/24"])], &[], &["no addresses of the same family"]),
];

#[test]
fn other_nodes() {
    for (rows, nodes, words) in OTHERS {
        let all: Vec<Row> = [OWN].iter().chain(*rows).copied().collect();
        let resolved = resolve(&seen(&all), "a", &Network::default());
        assert_eq!(resolved.waiting, None, "{rows:?}");
        let mut want = vec!["a 192.168.1.11 10.244.1.0/24".to_owned()];
        want.extend(nodes.iter().map(ToString::to_string));
        assert_eq!(show(&resolved.nodes), want, "{rows:?}");
        assert_eq!(resolved.doubts.len(), words.len(), "{:?}", resolved.doubts);
        for (doubt, word) in resolved.doubts.iter().zip(*words) {
            assert!(doubt.to_string().contains(word), "wanted {word:?} in {doubt}");
        }
    }
}

/// Each: this node, and words of why it waits.
const WAITING: &[(Row, &str)] = &[
    (("x", 1, &["192.168.1.11"], &["10.244.1.0/24"]), "no node object called \"a\""),
    (("a", 1, &["192.168.1.11"], &[]), "no pod network yet (spec.podCIDRs)"),
    (("a", 1, &[], &["10.244.1.0/24"]), "no InternalIP (no address at all)"),
    (("a", 1, &["Hostname=a"], &["10.244.1.0/24"]), "only Hostname"),
    (("a", 1, &["192.168.1.11"], &["10.244.1.0/31"]), "too small"),
    (("a", 7, &["192.168.1.11"], &["10.244.2.0/24"]), "overlaps 10.244.2.0/24 of node b"),
    (("a", 1, &["10.244.2.9"], &["10.244.1.0/24"]), "inside the pod network"),
];

#[test]
fn this_node_waits_and_says_why() {
    for (own, words) in WAITING {
        let resolved = resolve(&seen(&[*own, OTHER]), "a", &Network::default());
        let why = resolved.waiting.unwrap();
        assert!(why.contains(words), "wanted {words:?} in {why}");
        assert!(resolved.nodes.iter().any(|node| node.name == "b"), "the others are known");
        assert!(resolved.nodes.iter().all(|node| node.name != "a"), "{own:?}");
        assert_eq!(resolved.doubts, [], "it is told once");
    }
}

#[test]
fn this_node_forwards_with_what_it_had_and_has_no_claim() {
    for standing in [Standing::Deleted, Standing::Renewed] {
        let mut objects = seen(&[OWN, OTHER]);
        objects.get_mut("a").unwrap().standing = standing;
        let resolved = resolve(&objects, "a", &Network::default());
        assert!(resolved.waiting.unwrap().contains("pods that run keep their network"));
        assert_eq!(resolved.nodes.len(), 2);
        // Given to a younger node meanwhile.
        objects.get_mut("b").unwrap().pod_cidrs = vec!["10.244.1.0/24".to_owned()];
        let resolved = resolve(&objects, "a", &Network::default());
        assert_eq!(show(&resolved.nodes), ["b 192.168.1.12 10.244.1.0/24"]);
    }
}

#[test]
fn families() {
    let v6: [Row; 2] = [
        ("a", 1, &["fd00:1::11"], &["fd00:2:1::/64"]),
        ("b", 2, &["fd00:1::12"], &["fd00:2:2::/64"]),
    ];
    let dual: [Row; 2] = [
        ("a", 1, &["192.168.1.11", "fd00:1::11"], &["10.244.1.0/24", "fd00:2:1::/64"]),
        ("b", 2, &["192.168.1.12", "fd00:1::12"], &["10.244.2.0/24", "fd00:2:2::/64"]),
    ];
    for rows in [&[OWN, OTHER], &v6, &dual] {
        for encapsulation in [Encapsulation::Direct, Encapsulation::Vxlan, Encapsulation::Auto] {
            let resolved = resolve(&seen(rows), "a", &mode(encapsulation));
            assert_eq!(
                (resolved.nodes.len(), resolved.doubts.len(), &resolved.waiting),
                (2, 0, &None)
            );
        }
    }
    // Dual-stack pods over nodes with one family: VXLAN only.
    let rows: [Row; 2] = [dual[0], ("b", 2, &["192.168.1.12"], dual[1].3)];
    let resolved = resolve(&seen(&rows), "a", &mode(Encapsulation::Vxlan));
    assert_eq!(show(&resolved.nodes)[1], "b 192.168.1.12 10.244.2.0/24,fd00:2:2::/64");
    let resolved = resolve(&seen(&rows), "a", &mode(Encapsulation::Direct));
    assert_eq!(show(&resolved.nodes)[1], "b 192.168.1.12 10.244.2.0/24");
    assert!(resolved.doubts[0].to_string().contains("no IPv6 InternalIP"), "{:?}", resolved.doubts);
}

#[test]
fn networks_outside_the_clusters_are_left_out() {
    let network =
        Network { cluster_cidrs: vec!["10.244.0.0/23".parse().unwrap()], ..Network::default() };
    let resolved = resolve(&seen(&[OWN, OTHER]), "a", &network);
    assert_eq!(resolved.nodes.len(), 1);
    let doubt = resolved.doubts[0].to_string();
    assert!(doubt.contains("10.244.2.0/24 is outside the cluster's networks"), "{doubt}");
}

#[test]
fn thousands_of_nodes() {
    let mut objects = seen(&[OWN]);
    for n in 0..5_000_u32 {
        let mut one = seen(&[OTHER]).remove("b").unwrap();
        one.addresses[0].address = format!("192.168.{}.{}", 10 + n / 250, n % 250 + 1);
        one.pod_cidrs = vec![format!("10.{}.{}.0/24", n / 250, n % 250)];
        objects.insert(format!("n{n}"), one);
    }
    let started = std::time::Instant::now();
    let resolved = resolve(&objects, "a", &Network::default());
    assert_eq!((resolved.nodes.len(), resolved.doubts.len()), (5_001, 0));
    assert!(started.elapsed().as_secs() < 5, "linear in the number of nodes");
}
