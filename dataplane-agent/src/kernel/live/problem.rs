//! Settings of the host, not ours, that cut pods off.

use std::process::Command;

use serde_json::Value;

use super::nft;
use crate::kernel::{HOST_DEVICE, NFT_TABLE};

/// What on this host keeps pods from the world, each with what to do. Blocks for a moment.
pub fn problems() -> Vec<String> {
    forward_policies()
}

/// Chains that drop what the host forwards, and whose table does not name our device.
fn forward_policies() -> Vec<String> {
    let chains = objects(&["list", "chains"], "chain");
    let drops = chains.iter().filter(|chain| {
        text(chain, "hook") == "forward"
            && text(chain, "policy") == "drop"
            && (text(chain, "family"), text(chain, "table")) != ("inet", NFT_TABLE)
    });
    let mut problems = Vec::new();
    for chain in drops {
        let (family, table, name) =
            (text(chain, "family"), text(chain, "table"), text(chain, "name"));
        let rules = objects(&["list", "table", family, table], "rule");
        if rules.iter().any(|rule| rule.to_string().contains(HOST_DEVICE)) {
            continue;
        }
        problems.push(format!(
            "the firewall drops what this host forwards (nftables chain {family} {table} {name}, \
             policy drop): pods reach other pods but not the world; accept {HOST_DEVICE} in it{}",
            remedy(family, table, name)
        ));
    }
    problems
}

fn remedy(family: &str, table: &str, name: &str) -> String {
    match (family, table) {
        ("ip" | "ip6", "filter") => {
            let tool = if family == "ip" { "iptables" } else { "ip6tables" };
            format!(
                ": `{tool} -I {name} -i {HOST_DEVICE} -j ACCEPT` and `{tool} -I {name} -o \
                 {HOST_DEVICE} -j ACCEPT`"
            )
        }
        _ => format!(
            ": `nft insert rule {family} {table} {name} iifname {HOST_DEVICE} accept` and the same \
             with oifname"
        ),
    }
}

/// The objects of one kind that `nft -j` lists; none when it cannot be asked.
fn objects(arguments: &[&str], kind: &str) -> Vec<Value> {
    let Some(nft) = nft::executable() else { return Vec::new() };
    let output = Command::new(nft).arg("-j").args(arguments).output();
    let document = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let list: Option<Vec<Value>> = document
        .and_then(|mut document: Value| document.get_mut("nftables").map(Value::take))
        .and_then(|list| serde_json::from_value(list).ok());
    let objects = list.unwrap_or_default().into_iter();
    objects.filter_map(|mut object| object.get_mut(kind).map(Value::take)).collect()
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
