//! All node objects that are known, and how what the API server tells changes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is kept of a node object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// Seconds since 1970: of two nodes that claim the same, the older has it.
    pub(super) created: i64,
    #[serde(default)]
    pub(super) uid: String,
    pub(super) addresses: Vec<SeenAddress>,
    pub(super) pod_cidrs: Vec<String>,
    #[serde(default)]
    pub(super) standing: Standing,
    /// The place of the first taint of ours among its taints.
    #[serde(skip)]
    pub(super) taint_at: Option<usize>,
    /// Its condition says that pods have a network.
    #[serde(skip)]
    pub(super) is_available: bool,
}

/// An address of a node object, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenAddress {
    pub(super) r#type: String,
    pub(super) address: String,
}

/// Whether the API server stands behind what is known of a node. Only of this node more is remembered than
/// it says: pods run here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    /// It does.
    #[default]
    Registered,
    /// The node was deleted.
    Deleted,
    /// It was deleted and made again, and has no pod network yet: this is what it had.
    Renewed,
}

/// All nodes, by name.
#[derive(Debug, Default)]
pub(super) struct Objects {
    own_name: String,
    seen: BTreeMap<String, Seen>,
    /// A list that has not come to its end.
    listing: Option<BTreeMap<String, Seen>>,
}

/// A list without a single node, while this one runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotBelieved;

impl Objects {
    /// With what was known at some earlier time.
    pub(super) fn new(own_name: &str, seen: BTreeMap<String, Seen>) -> Self {
        Self { own_name: own_name.to_owned(), seen, listing: None }
    }

    pub(super) fn all(&self) -> &BTreeMap<String, Seen> {
        &self.seen
    }

    pub(super) fn own(&self) -> Option<&Seen> {
        self.seen.get(&self.own_name)
    }

    /// A list of all nodes begins.
    pub(super) fn begin(&mut self) {
        self.listing = Some(BTreeMap::new());
    }

    /// A node of the list.
    pub(super) fn list(&mut self, name: String, seen: Seen) {
        let seen = self.without_care(&name, seen);
        if let Some(listing) = &mut self.listing {
            listing.insert(name, seen);
        }
    }

    /// The list is complete; true if anything is new.
    ///
    /// # Errors
    /// When it is empty: then what was known stays.
    pub(super) fn finish(&mut self) -> Result<bool, NotBelieved> {
        let mut listed = self.listing.take().unwrap_or_default();
        if listed.is_empty() {
            return Err(NotBelieved);
        }
        let own = match listed.remove(&self.own_name) {
            Some(own) => Some(self.remembering(own)),
            None => self.own().map(deleted),
        };
        listed.extend(own.map(|own| (self.own_name.clone(), own)));
        let is_new = listed != self.seen;
        self.seen = listed;
        Ok(is_new)
    }

    /// A node is new or has changed; true if in anything that is kept.
    pub(super) fn apply(&mut self, name: String, seen: Seen) -> bool {
        let seen = self.without_care(&name, seen);
        let seen = if name == self.own_name { self.remembering(seen) } else { seen };
        if self.seen.get(&name) == Some(&seen) {
            return false;
        }
        self.seen.insert(name, seen);
        true
    }

    /// A node is gone; true if it was known.
    pub(super) fn delete(&mut self, name: &str) -> bool {
        if name != self.own_name {
            return self.seen.remove(name).is_some();
        }
        let Some(own) = self.own().map(deleted) else { return false };
        self.apply_as_is(own)
    }

    /// Taint and condition of others are theirs.
    fn without_care(&self, name: &str, seen: Seen) -> Seen {
        if name == self.own_name {
            seen
        } else {
            Seen { taint_at: None, is_available: false, ..seen }
        }
    }

    fn apply_as_is(&mut self, own: Seen) -> bool {
        let before = self.seen.insert(self.own_name.clone(), own);
        before.as_ref() != self.own()
    }

    /// This node keeps its pod networks until it is given others: its pods have their addresses there.
    fn remembering(&self, own: Seen) -> Seen {
        match self.own() {
            Some(before) if own.pod_cidrs.is_empty() && !before.pod_cidrs.is_empty() => {
                Seen { pod_cidrs: before.pod_cidrs.clone(), standing: Standing::Renewed, ..own }
            }
            Some(_) | None => own,
        }
    }
}

fn deleted(own: &Seen) -> Seen {
    Seen { standing: Standing::Deleted, taint_at: None, ..own.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cidr: &str) -> Seen {
        let pod_cidrs = [cidr].into_iter().filter(|text| !text.is_empty()).map(str::to_owned);
        Seen { created: 1, pod_cidrs: pod_cidrs.collect(), ..Seen::default() }
    }

    fn two() -> Objects {
        let mut objects = Objects::new("a", BTreeMap::new());
        objects.begin();
        objects.list("a".to_owned(), seen("10.0.1.0/24"));
        objects.list("b".to_owned(), seen("10.0.2.0/24"));
        assert_eq!(objects.finish(), Ok(true));
        objects
    }

    fn names(objects: &Objects) -> Vec<&str> {
        objects.all().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_list_replaces_what_was_known_when_it_is_complete() {
        let mut objects = two();
        objects.begin();
        objects.list("a".to_owned(), seen("10.0.1.0/24"));
        objects.list("c".to_owned(), seen("10.0.3.0/24"));
        assert_eq!(names(&objects), ["a", "b"]);
        assert_eq!(objects.finish(), Ok(true));
        assert_eq!(names(&objects), ["a", "c"]);
        // One that broke off is forgotten.
        objects.begin();
        objects.begin();
        objects.list("a".to_owned(), seen("10.0.1.0/24"));
        objects.list("c".to_owned(), seen("10.0.3.0/24"));
        assert_eq!(objects.finish(), Ok(false));
    }

    #[test]
    fn an_empty_list_is_not_believed() {
        let mut objects = two();
        objects.begin();
        assert_eq!(objects.finish(), Err(NotBelieved));
        assert_eq!(names(&objects), ["a", "b"]);
    }

    #[test]
    fn others_come_change_and_go() {
        let mut objects = two();
        assert!(objects.apply("c".to_owned(), seen("10.0.3.0/24")));
        assert!(!objects.apply("c".to_owned(), seen("10.0.3.0/24")));
        assert!(objects.apply("c".to_owned(), seen("10.0.4.0/24")));
        assert!(objects.delete("b"));
        assert!(!objects.delete("b"));
        assert_eq!(names(&objects), ["a", "c"]);
    }

    #[test]
    fn this_node_is_remembered() {
        let mut objects = two();
        assert!(objects.delete("a"));
        assert!(!objects.delete("a"));
        let own = |objects: &Objects| {
            let own = objects.own().unwrap();
            (own.pod_cidrs.join(","), own.standing)
        };
        let cidr = "10.0.1.0/24".to_owned();
        assert_eq!(own(&objects), (cidr.clone(), Standing::Deleted));
        assert!(objects.apply("a".to_owned(), seen("")));
        assert_eq!(own(&objects), (cidr.clone(), Standing::Renewed));
        assert!(objects.apply("a".to_owned(), seen("10.0.9.0/24")));
        assert_eq!(own(&objects), ("10.0.9.0/24".to_owned(), Standing::Registered));
        objects.begin();
        objects.list("b".to_owned(), seen("10.0.2.0/24"));
        assert_eq!(objects.finish(), Ok(true));
        assert_eq!(own(&objects), ("10.0.9.0/24".to_owned(), Standing::Deleted));
    }
}
