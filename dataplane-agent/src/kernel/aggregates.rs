//! How long the packets may be that the kernel handles as one, per interface.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Link;

/// What every interface has that nobody changed, and what a header can say (`GSO_LEGACY_MAX_SIZE`).
pub const LEGACY_MAX: u32 = 65_536;
/// The kernel takes no more (`GSO_MAX_SIZE`, `GRO_MAX_SIZE`).
pub const AGGREGATE_MAX: u32 = 8 * 65_535;

/// Largest aggregates of an interface, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aggregates {
    /// That it sends, of IPv6 (`gso_max_size`).
    pub gso: u32,
    /// That it puts together of what it receives, of IPv6 (`gro_max_size`).
    pub gro: u32,
    /// That it sends, of IPv4.
    pub gso_ipv4: u32,
    /// That it puts together of what it receives, of IPv4.
    pub gro_ipv4: u32,
}

impl Default for Aggregates {
    fn default() -> Self {
        Self { gso: LEGACY_MAX, gro: LEGACY_MAX, gso_ipv4: LEGACY_MAX, gro_ipv4: LEGACY_MAX }
    }
}

/// An uplink whose aggregates we made larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Raised {
    /// Its index: another interface may get its name.
    pub ifindex: u32,
    /// What it had.
    pub before: Aggregates,
    /// What it got.
    pub set: Aggregates,
}

impl Raised {
    /// Whether the interface still is as we made it: what somebody else has set since is not ours to change.
    pub fn is_ours(&self, ifindex: u32, now: &Aggregates) -> bool {
        self.ifindex == ifindex && self.set == *now
    }
}

/// All of them, by name.
pub type AllRaised = BTreeMap<String, Raised>;

/// Those of the interfaces where somebody has changed them, by name.
pub(crate) fn changed_aggregates(
    interfaces: &BTreeMap<String, Link>,
) -> BTreeMap<String, Aggregates> {
    let changed = interfaces.iter().filter(|(_, link)| link.aggregates != Aggregates::default());
    changed.map(|(name, link)| (name.clone(), link.aggregates)).collect()
}
