//! What is in nftables, as far as `nft` shows it: the rules of `iptables-nft` too, those of `iptables-legacy` not.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::kernel::KernelError;
use crate::kernel::live::problem::{listing, objects, text};

/// Tables of `iptables-legacy` in this network namespace.
const LEGACY: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// Tables and chains.
#[derive(Clone, Debug, Default)]
pub struct Firewall {
    /// Family and name of each table.
    pub tables: Vec<(String, String)>,
    /// All chains.
    pub chains: Vec<Chain>,
    /// The text of tables whose input is dropped unless a rule says otherwise.
    pub closed: BTreeMap<(String, String), String>,
    /// Tables that `nft` does not show.
    pub legacy: Vec<String>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
    pub hook: String,
    pub policy: String,
}

impl Chain {
    /// Whether it drops what comes to this node and is accepted by none of its rules.
    pub fn is_closed_input(&self) -> bool {
        self.hook == "input" && self.policy == "drop"
    }
}

/// Lists them. Blocks for a moment.
///
/// # Errors
/// When `nft` fails.
pub fn look() -> Result<Firewall, KernelError> {
    let of = |value: &Value, key: &str| text(value, key).to_owned();
    let tables = objects(&["list", "tables"], "table")?;
    let chains = objects(&["list", "chains"], "chain")?;
    let chain = |value: &Value| Chain {
        family: of(value, "family"),
        table: of(value, "table"),
        name: of(value, "name"),
        hook: of(value, "hook"),
        policy: of(value, "policy"),
    };
    let chains: Vec<Chain> = chains.iter().map(chain).collect();
    let mut closed = BTreeMap::new();
    for chain in chains.iter().filter(|chain| chain.is_closed_input()) {
        let arguments = ["--stateless", "--numeric", "list", "table", &chain.family, &chain.table];
        let text = listing(&arguments)?;
        closed.insert((chain.family.clone(), chain.table.clone()), text);
    }
    Ok(Firewall {
        tables: tables.iter().map(|table| (of(table, "family"), of(table, "name"))).collect(),
        chains,
        closed,
        legacy: legacy(),
    })
}

fn legacy() -> Vec<String> {
    let texts = LEGACY.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}
