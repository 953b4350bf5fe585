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
    let Some(ruleset) = list_ruleset() else { return Vec::new() };
    let objects = ruleset.get("nftables").and_then(Value::as_array);
    let chains = objects.into_iter().flatten().filter_map(|object| object.get("chain"));
    let rules: Vec<_> = objects.into_iter().flatten().filter_map(|o| o.get("rule")).collect();
    let mut problems = Vec::new();
    for chain in chains {
        let text = |key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default();
        let (family, table, name) = (text("family"), text("table"), text("name"));
        let is_foreign = !(family == "inet" && table == NFT_TABLE);
        let drops = text("hook") == "forward" && text("policy") == "drop";
        if !is_foreign || !drops {
            continue;
        }
        let same_table = |rule: &&&Value| {
            rule.get("family").and_then(Value::as_str) == Some(family)
                && rule.get("table").and_then(Value::as_str) == Some(table)
        };
        if rules.iter().filter(same_table).any(|rule| rule.to_string().contains(HOST_DEVICE)) {
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

fn list_ruleset() -> Option<Value> {
    let output = Command::new(nft::executable()?).args(["-j", "list", "ruleset"]).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}
