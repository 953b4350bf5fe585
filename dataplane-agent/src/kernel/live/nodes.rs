//! `pw_nodes`, thousands of entries in one call.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::lpm_trie::Key;
use aya::maps::{IterableMap as _, LpmTrie, MapData};
use dataplane_core::abi::names::{MAP_NODES, NODES_MAX};
use dataplane_core::abi::{Addr, NodeEntry};
use ipnet::IpNet;

use super::error::{Context as _, refusal};
use super::syscall;
use crate::kernel::node_table::Prefix;
use crate::kernel::{KernelError, NodeTable};

/// Entries in one call of those that read.
const READ_AT_ONCE: usize = 4096;

/// The map.
pub(super) struct Nodes(pub(super) LpmTrie<MapData, Addr, NodeEntry>);

impl Nodes {
    pub(super) fn read(&self) -> Result<NodeTable, KernelError> {
        Reader { map: self.fd(), rows: Vec::new().into_iter(), last: None, is_through: false }
            .map(|row| {
                let (key, entry) = row.context(|| format!("read {MAP_NODES}"))?;
                Ok((prefix(&key)?, entry))
            })
            .collect()
    }

    /// Puts each of them, though one may fail.
    pub(super) fn put(&self, rows: &NodeTable) -> Result<(), KernelError> {
        let keys: Vec<Key<Addr>> = rows.iter().map(|(prefix, _)| key(prefix)).collect();
        let values: Vec<NodeEntry> = rows.iter().map(|(_, entry)| entry).collect();
        let refused = each(keys.len(), |at| {
            let (keys, values) = (keys.get(at..), values.get(at..));
            syscall::update_batch(self.fd(), keys.unwrap_or_default(), values.unwrap_or_default())
        });
        let what = |at| {
            let prefix = rows.iter().nth(at).map(|(prefix, _)| prefix.to_string());
            format!("put {} into {MAP_NODES} (it holds {NODES_MAX})", prefix.unwrap_or_default())
        };
        refused.map_or(Ok(()), |(at, error)| Err(error).context(|| what(at)))
    }

    /// Removes each of them, though one may fail. One that is gone is none that fails.
    pub(super) fn remove(&self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let keys: Vec<Key<Addr>> = prefixes.iter().copied().map(key).collect();
        let refused = each(keys.len(), |at| {
            let result = syscall::delete_batch(self.fd(), keys.get(at..).unwrap_or_default());
            match result {
                Err((done, error)) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(done.saturating_add(1))
                }
                result => result,
            }
        });
        let what = |at| {
            let prefix = prefixes.get(at).map(ToString::to_string);
            format!("remove {} from {MAP_NODES}", prefix.unwrap_or_default())
        };
        refused.map_or(Ok(()), |(at, error)| Err(error).context(|| what(at)))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.map().fd().as_fd()
    }
}

/// Runs a batch from the first on, and again from behind each one that fails. The first that did.
fn each(
    count: usize,
    mut batch: impl FnMut(usize) -> Result<usize, (usize, io::Error)>,
) -> Option<(usize, io::Error)> {
    let mut refused = None;
    let mut at: usize = 0;
    while at < count {
        match batch(at) {
            // Nothing is done and nothing failed: it would be so for ever.
            Ok(0) => break,
            Ok(done) => at = at.saturating_add(done),
            Err((done, error)) => {
                at = at.saturating_add(done);
                refused.get_or_insert((at, error));
                at = at.saturating_add(1);
            }
        }
    }
    refused
}

/// Goes through the map.
struct Reader<'a> {
    map: BorrowedFd<'a>,
    rows: std::vec::IntoIter<(Key<Addr>, NodeEntry)>,
    /// Where the next call goes on.
    last: Option<Key<Addr>>,
    is_through: bool,
}

impl Iterator for Reader<'_> {
    type Item = io::Result<(Key<Addr>, NodeEntry)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            if self.is_through {
                return None;
            }
            match syscall::lookup_batch(self.map, self.last.as_ref(), READ_AT_ONCE) {
                Ok(rows) => {
                    self.is_through = rows.len() < READ_AT_ONCE;
                    self.last = rows.last().map(|(key, _)| *key);
                    self.rows = rows.into_iter();
                }
                Err(error) => {
                    self.is_through = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

fn key(net: IpNet) -> Key<Addr> {
    let (bits, address) = Prefix::from(net).to_key();
    Key::new(bits, address)
}

fn prefix(key: &Key<Addr>) -> Result<IpNet, KernelError> {
    let bits = key.prefix_len();
    Prefix::of_key(bits, key.data())
        .map(IpNet::from)
        .ok_or_else(|| refusal(format!("read {MAP_NODES}"), format!("a key of {bits} bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_prefixes_are_inverse() {
        for text in
            ["10.244.1.0/24", "0.0.0.0/0", "10.0.0.1/32", "fd00::/64", "::/0", "fd00::1/128"]
        {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(prefix(&key(net)).unwrap(), net);
        }
        assert_eq!(key("10.244.1.0/24".parse().unwrap()).prefix_len(), 120);
    }

    #[test]
    fn a_batch_goes_on_behind_what_fails() {
        let mut calls = Vec::new();
        let refused = each(7, |at| {
            calls.push(at);
            // The third and the last but one.
            match [2, 5].into_iter().find(|bad| *bad >= at) {
                Some(bad) => Err((bad - at, io::Error::from_raw_os_error(bad as i32))),
                None => Ok(7 - at),
            }
        });
        assert_eq!(calls, [0, 3, 6]);
        let (at, error) = refused.unwrap();
        assert_eq!((at, error.raw_os_error()), (2, Some(2)), "the first one is told");
        assert!(each(0, |_| panic!()).is_none());
        assert!(each(5, |_| Ok(5)).is_none());
    }
}
