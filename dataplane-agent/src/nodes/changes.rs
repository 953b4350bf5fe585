//! What is other in a list of nodes than in the one before, for people. Pure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::Node;

/// Changes that are named; of the others the number.
const NAMED_MAX: usize = 10;
/// Elements of one list that are shown.
const SHOWN_MAX: usize = 8;

/// What is other between two lists of nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes<'a> {
    /// The first by name.
    pub(crate) named: Vec<Change<'a>>,
    /// How many more nodes changed.
    pub(crate) more: usize,
}

/// What became of one node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// It was not there before.
    New(&'a Node),
    /// It is not there any more.
    Gone(&'a Node),
    /// It has the same name, but nothing else need be the same.
    Other {
        /// Its name.
        name: &'a str,
        /// Those before and those now, if they are others; their order counts.
        addresses: Option<[&'a [IpAddr]; 2]>,
        /// Pod networks that it does not have any more.
        lost: Vec<IpNet>,
        /// Pod networks that it did not have before.
        added: Vec<IpNet>,
    },
}

/// A list for people, who do not read hundreds of elements.
pub(crate) struct Brief<'a, T>(pub(crate) &'a [T]);

impl<T: fmt::Debug> fmt::Debug for Brief<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self.0.iter().take(SHOWN_MAX));
        let more = self.0.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            list.entry(&format_args!("and {more} more"));
        }
        list.finish()
    }
}

/// Compares the nodes of each name, whatever the order of the lists. A name occurs once in a list.
pub(crate) fn changes<'a>(before: &'a [Arc<Node>], now: &'a [Arc<Node>]) -> Changes<'a> {
    let (mut before, mut now) = (by_name(before).peekable(), by_name(now).peekable());
    let pairs = std::iter::from_fn(|| {
        let (old, new) = match (before.peek(), now.peek()) {
            (Some(old), Some(new)) => (old.name <= new.name, new.name <= old.name),
            (old, new) => (old.is_some(), new.is_some()),
        };
        (old || new).then(|| (before.next_if(|_| old), now.next_if(|_| new)))
    });
    let mut all = pairs.filter_map(|pair| match pair {
        (Some(old), Some(new)) => difference(old, new),
        (Some(old), None) => Some(Change::Gone(old)),
        (None, new) => new.map(|new| Change::New(new)),
    });
    Changes { named: all.by_ref().take(NAMED_MAX).collect(), more: all.count() }
}

/// Sorts references: thousands of nodes with all that they have stay where they are.
fn by_name(nodes: &[Arc<Node>]) -> impl Iterator<Item = &Arc<Node>> {
    let mut nodes: Vec<&Arc<Node>> = nodes.iter().collect();
    nodes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    nodes.into_iter()
}

fn difference<'a>(old: &'a Arc<Node>, new: &'a Arc<Node>) -> Option<Change<'a>> {
    // What has not changed in a node file is not even a copy: this compares pointers first.
    if old == new {
        return None;
    }
    let addresses = (old.addresses != new.addresses)
        .then_some([old.addresses.as_slice(), new.addresses.as_slice()]);
    let lost = beyond(&old.pod_cidrs, &new.pod_cidrs);
    let added = beyond(&new.pod_cidrs, &old.pod_cidrs);
    let is_other = addresses.is_some() || !lost.is_empty() || !added.is_empty();
    is_other.then_some(Change::Other { name: &new.name, addresses, lost, added })
}

/// What the others do not have, in its order.
fn beyond(these: &[IpNet], others: &[IpNet]) -> Vec<IpNet> {
    let mut others: Vec<&IpNet> = others.iter().collect();
    others.sort_unstable();
    these.iter().filter(|cidr| others.binary_search(cidr).is_err()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Arc<Node> {
        Arc::new(Node {
            name: name.to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pod_cidrs: nets(pod_cidrs),
        })
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Not in the order of their names.
    fn three() -> Vec<Arc<Node>> {
        vec![
            node("c", &["192.168.1.13"], &["10.244.3.0/24"]),
            node("a", &["192.168.1.11"], &["10.244.1.0/24"]),
            node("b", &["192.168.1.12", "fd00::12"], &["10.244.2.0/24", "fd00:2::/64"]),
        ]
    }

    fn named<'a>(before: &'a [Arc<Node>], now: &'a [Arc<Node>]) -> Vec<Change<'a>> {
        let Changes { named, more } = changes(before, now);
        assert_eq!(more, 0);
        named
    }

    #[test]
    fn nothing_changed() {
        assert_eq!(changes(&[], &[]), Changes::default());
        assert_eq!(changes(&three(), &three()), Changes::default());
        let mut others = three();
        others.rotate_left(1);
        assert_eq!(changes(&three(), &others), Changes::default(), "another order of nodes");
        let cidrs = ["fd00:2::/64", "10.244.2.0/24"];
        *others.iter_mut().find(|node| node.name == "b").unwrap() =
            node("b", &["192.168.1.12", "fd00::12"], &cidrs);
        assert_eq!(changes(&three(), &others), Changes::default(), "another order of networks");
    }

    #[test]
    fn nodes_come_and_go() {
        let all = three();
        for at in 0..all.len() {
            let mut others = three();
            let one = others.remove(at);
            assert_eq!(named(&others, &all), [Change::New(&one)]);
            assert_eq!(named(&all, &others), [Change::Gone(&one)]);
        }
        let renamed = [node("d", &["192.168.1.13"], &["10.244.3.0/24"])];
        let expected = [Change::Gone(&all[0]), Change::New(&renamed[0])];
        assert_eq!(named(&all[..1], &renamed), expected);
        assert_eq!(named(&[], &all).len(), 3);
        assert_eq!(named(&all, &[]).len(), 3);
    }

    #[test]
    fn addresses_change() {
        let before = three();
        for addresses in [&["192.168.1.22", "fd00::12"][..], &["fd00::12", "192.168.1.12"]] {
            let mut now = three();
            now[2] = node("b", addresses, &["10.244.2.0/24", "fd00:2::/64"]);
            let addresses = Some([&before[2].addresses[..], &now[2].addresses]);
            let expected = Change::Other { name: "b", addresses, lost: vec![], added: vec![] };
            assert_eq!(named(&before, &now), [expected]);
        }
    }

    #[test]
    fn pod_networks_change() {
        let before = three();
        let same = ["192.168.1.12", "fd00::12"];
        for (cidrs, lost, added) in [
            (&["10.244.9.0/24", "fd00:2::/64"][..], &["10.244.2.0/24"][..], &["10.244.9.0/24"][..]),
            (&["fd00:2::/64", "10.244.2.0/24", "10.244.1.0/25"], &[], &["10.244.1.0/25"]),
            (&["10.244.2.0/24"], &["fd00:2::/64"], &[]),
            (&["10.244.2.0/25", "fd00:2::/64"], &["10.244.2.0/24"], &["10.244.2.0/25"]),
        ] {
            let mut now = three();
            now[2] = node("b", &same, cidrs);
            let (lost, added) = (nets(lost), nets(added));
            let expected = Change::Other { name: "b", addresses: None, lost, added };
            assert_eq!(named(&before, &now), [expected]);
        }
    }

    #[test]
    fn a_node_that_is_made_again_is_one_change() {
        let (before, mut now) = (three(), three());
        now[1] = node("a", &["192.168.1.21"], &["10.244.9.0/24"]);
        let addresses = Some([&before[1].addresses[..], &now[1].addresses]);
        let (lost, added) = (nets(&["10.244.1.0/24"]), nets(&["10.244.9.0/24"]));
        let expected = Change::Other { name: "a", addresses, lost, added };
        assert_eq!(named(&before, &now), [expected]);
    }

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let many = |range: std::ops::Range<usize>| -> Vec<Arc<Node>> {
            let one = |n| node(&format!("node-{n:04}"), &["192.168.1.1"], &["10.244.1.0/24"]);
            range.map(one).collect()
        };
        let all = many(0..5_000);
        for (before, now, more) in [
            (many(0..10), many(0..20), 0),
            (many(0..10), many(0..21), 1),
            (many(0..21), many(0..10), 1),
            (many(0..1), all.clone(), 4_989),
            (all.clone(), many(5_000..10_000), 9_990),
        ] {
            let changes = changes(&before, &now);
            assert_eq!((changes.named.len(), changes.more), (NAMED_MAX, more));
        }
        let mut reversed = all.clone();
        reversed.reverse();
        let changes = changes(&reversed, &all[3..]);
        let first: Vec<_> = all[..3].iter().map(|node| Change::Gone(node)).collect();
        assert_eq!(changes.named, first);
    }

    #[test]
    fn a_long_list_is_shown_in_part() {
        let shown = |n: usize| format!("{:?}", Brief(&nets(&vec!["10.0.0.0/8"; n])));
        assert_eq!(shown(0), "[]");
        assert_eq!(shown(2), "[10.0.0.0/8, 10.0.0.0/8]");
        assert!(shown(SHOWN_MAX).ends_with("10.0.0.0/8]"));
        assert!(shown(SHOWN_MAX + 30).ends_with("10.0.0.0/8, and 30 more]"));
    }
}
