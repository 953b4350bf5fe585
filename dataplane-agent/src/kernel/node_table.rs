//! The content of `pw_nodes`, in little memory: hundreds of thousands of prefixes lead to a few thousand nodes.

use std::collections::HashMap;
use std::fmt;
use std::iter::Peekable;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use dataplane_core::abi::address::IPV4_PREFIX_OFFSET;
use dataplane_core::abi::{Addr, NodeEntry};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Entries by prefix. A copy shares the memory of its original.
#[derive(Clone, Default)]
pub struct NodeTable(Arc<Content>);

#[derive(Default)]
struct Content {
    /// By prefix, each once.
    rows: Vec<Row>,
    /// What the rows refer to, each once.
    entries: Vec<NodeEntry>,
}

#[derive(Clone, Copy)]
struct Row {
    /// The two halves of the address, which need not be aligned as the whole.
    address: [u64; 2],
    bits: u8,
    /// Number of its entry.
    entry: u32,
}

const _: () = assert!(size_of::<Row>() == 24);

impl Row {
    fn new(net: IpNet, entry: u32) -> Self {
        let Prefix { address, bits } = net.into();
        Self { address: [(address >> 64) as u64, address as u64], bits, entry }
    }

    fn prefix(&self) -> Prefix {
        let [high, low] = self.address.map(u128::from);
        Prefix { address: high << 64 | low, bits: self.bits }
    }
}

/// A prefix as in the map: the address with IPv4 in its mapped form, and the number of bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    address: u128,
    bits: u8,
}

impl Prefix {
    /// Of a key of the map; none where that has more bits than an address.
    pub(crate) fn of_key(bits: u32, address: Addr) -> Option<Self> {
        let bits = u8::try_from(bits).ok().filter(|bits| *bits <= 128)?;
        Some(Self { address: u128::from_be_bytes(address.bytes), bits })
    }

    /// The number of bits and the address, as in a key of the map.
    pub(crate) fn to_key(self) -> (u32, Addr) {
        (self.bits.into(), Addr { bytes: self.address.to_be_bytes() })
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        let offset = if matches!(net, IpNet::V4(_)) { IPV4_PREFIX_OFFSET as u8 } else { 0 };
        let address = u128::from_be_bytes(Addr::from(net.network()).bytes);
        Self { address, bits: net.prefix_len().saturating_add(offset) }
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        let ip = Addr { bytes: prefix.address.to_be_bytes() }.to_ip();
        match (ip, prefix.bits.checked_sub(IPV4_PREFIX_OFFSET as u8)) {
            (IpAddr::V4(ip), Some(bits)) => Self::V4(Ipv4Net::new_assert(ip, bits)),
            (IpAddr::V4(_) | IpAddr::V6(_), _) => {
                Self::V6(Ipv6Net::new_assert(Ipv6Addr::from(prefix.address), prefix.bits))
            }
        }
    }
}

impl NodeTable {
    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// The entry of exactly this prefix.
    pub fn get(&self, prefix: &IpNet) -> Option<&NodeEntry> {
        let prefix = Prefix::from(*prefix);
        let at = self.0.rows.binary_search_by_key(&prefix, Row::prefix).ok()?;
        self.0.rows.get(at).and_then(|row| self.0.entry(row))
    }

    /// All of it, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, NodeEntry)> {
        let rows = self.0.rows.iter();
        rows.filter_map(|row| Some((row.prefix().into(), *self.0.entry(row)?)))
    }

    /// What the other table does not have, or has otherwise.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (IpNet, NodeEntry)> + 'a {
        self.compare(other).filter_map(|(row, theirs)| {
            let entry = self.0.entry(row)?;
            (theirs != Some(entry)).then(|| (row.prefix().into(), *entry))
        })
    }

    /// The prefixes that the other table does not have.
    pub fn prefixes_beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpNet> + 'a {
        let missing = self.compare(other).filter(|(_, theirs)| theirs.is_none());
        missing.map(|(row, _)| row.prefix().into())
    }

    /// Shares the memory of the other table, if both have the same content.
    pub fn share(&mut self, other: &Self) {
        if self == other {
            self.clone_from(other);
        }
    }

    /// Each row with the other's entry of its prefix; nothing at all where the memory is shared.
    fn compare<'a>(&'a self, other: &'a Self) -> Comparison<'a> {
        let rows: &[Row] = if Arc::ptr_eq(&self.0, &other.0) { &[] } else { &self.0.rows };
        Comparison { rows: rows.iter(), others: other.0.rows.iter().peekable(), other: &other.0 }
    }
}

impl Content {
    fn entry(&self, row: &Row) -> Option<&NodeEntry> {
        self.entries.get(row.entry as usize)
    }
}

struct Comparison<'a> {
    rows: std::slice::Iter<'a, Row>,
    others: Peekable<std::slice::Iter<'a, Row>>,
    other: &'a Content,
}

impl<'a> Iterator for Comparison<'a> {
    type Item = (&'a Row, Option<&'a NodeEntry>);

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        let prefix = row.prefix();
        while self.others.next_if(|other| other.prefix() < prefix).is_some() {}
        let same = self.others.next_if(|other| other.prefix() == prefix);
        Some((row, same.and_then(|other| self.other.entry(other))))
    }
}

impl PartialEq for NodeTable {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.beyond(other).next().is_none()
    }
}

impl fmt::Debug for NodeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
impl std::ops::Index<&IpNet> for NodeTable {
    type Output = NodeEntry;

    /// As that of a map.
    fn index(&self, prefix: &IpNet) -> &NodeEntry {
        self.get(prefix).unwrap_or_else(|| panic!("no entry of {prefix}"))
    }
}

impl FromIterator<(IpNet, NodeEntry)> for NodeTable {
    /// Of several entries of one prefix the last counts.
    fn from_iter<T: IntoIterator<Item = (IpNet, NodeEntry)>>(all: T) -> Self {
        let all = all.into_iter();
        let mut rows: Vec<Row> = Vec::with_capacity(all.size_hint().0);
        let mut entries = Vec::new();
        let mut numbers: HashMap<(Addr, u32, u32), u32> = HashMap::new();
        let mut last = None;
        for (net, entry) in all {
            let number = match last {
                Some((known, number)) if known == entry => number,
                Some(_) | None => {
                    *numbers.entry((entry.node, entry.kind, entry.mtu)).or_insert_with(|| {
                        entries.push(entry);
                        entries.len().saturating_sub(1) as u32
                    })
                }
            };
            last = Some((entry, number));
            rows.push(Row::new(net, number));
        }
        rows.sort_by_key(Row::prefix);
        rows.dedup_by(|later, kept| {
            let is_same = later.prefix() == kept.prefix();
            if is_same {
                kept.entry = later.entry;
            }
            is_same
        });
        rows.shrink_to_fit();
        entries.shrink_to_fit();
        Self(Arc::new(Content { rows, entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u32) -> NodeEntry {
        NodeEntry { node: Addr::UNSPECIFIED, kind, mtu: 0 }
    }

    fn table(rows: &[(&str, u32)]) -> NodeTable {
        rows.iter().map(|(net, kind)| (net.parse().unwrap(), entry(*kind))).collect()
    }

    fn nets(table: impl Iterator<Item = IpNet>) -> Vec<String> {
        table.map(|net| net.to_string()).collect()
    }

    #[test]
    fn is_a_map_of_prefixes() {
        let rows = [
            ("fd00::/64", 2),
            ("10.0.0.0/8", 1),
            ("::/0", 3),
            ("10.0.0.0/16", 4),
            ("10.0.0.0/8", 5),
        ];
        let table = table(&rows);
        let all = ["::/0", "10.0.0.0/8", "10.0.0.0/16", "fd00::/64"];
        assert_eq!(nets(table.iter().map(|(net, _)| net)), all);
        assert_eq!((table.len(), table.is_empty()), (4, false));
        assert_eq!(table[&"10.0.0.0/8".parse().unwrap()].kind, 5, "the last one counts");
        assert_eq!(table.get(&"10.0.0.0/9".parse().unwrap()), None);
        assert_eq!(table.get(&"0.0.0.0/0".parse().unwrap()), None, "not the prefix of all");
        assert_eq!(table.0.entries.len(), 5);
    }

    #[test]
    fn prefixes_come_back_as_they_were() {
        for text in [
            "10.244.1.0/24",
            "0.0.0.0/0",
            "10.0.0.1/32",
            "fd00::/64",
            "::/0",
            "fd00::1/128",
            "::/96",
        ] {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(IpNet::from(Prefix::from(net)), net);
        }
    }

    #[test]
    fn tables_are_compared() {
        let one = table(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 1), ("fd00::/64", 2)]);
        let other =
            table(&[("9.0.0.0/8", 1), ("10.1.0.0/16", 2), ("fd00::/64", 2), ("fd01::/64", 2)]);
        let differing = one.beyond(&other).map(|(net, _)| net);
        assert_eq!(nets(differing), ["10.0.0.0/8", "10.1.0.0/16"]);
        assert_eq!(nets(one.prefixes_beyond(&other)), ["10.0.0.0/8"]);
        assert_eq!(nets(other.prefixes_beyond(&one)), ["9.0.0.0/8", "fd01::/64"]);
        assert_ne!(one, other);
        assert_ne!(one, table(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 1)]));
    }

    #[test]
    fn what_is_the_same_is_there_once() {
        // Other numbers of the same entries.
        let rows = [("10.0.0.0/8", 1), ("10.1.0.0/16", 2)];
        let (one, mut other) = (table(&rows), table(&[rows[1], rows[0]]));
        assert_eq!(one, other);
        other.share(&one);
        assert!(Arc::ptr_eq(&one.0, &other.0));
        let mut third = table(&rows[..1]);
        third.share(&one);
        assert_eq!(third.len(), 1);
    }
}
