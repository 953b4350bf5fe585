//! Settings of the host, not ours, that cut pods off.

use std::process::Command;

use serde_json::Value;

use super::error::{Context as _, refusal};
use super::nft;
use crate::advice::Advice;
use crate::kernel::{HOST_DEVICE, KernelError, NFT_TABLE};

/// What on this host keeps pods from the world, each with what to do. Blocks for a moment.
pub fn problems() -> Vec<String> {
    forward_policies().iter().map(ToString::to_string).collect()
}

/// Chains that drop what the host forwards, and whose table does not name our device.
pub fn forward_policies() -> Vec<Advice> {
    let chains = objects(&["list", "chains"], "chain").unwrap_or_default();
    let drops = chains.iter().filter(|chain| {
        text(chain, "hook") == "forward"
            && text(chain, "policy") == "drop"
            && (text(chain, "family"), text(chain, "table")) != ("inet", NFT_TABLE)
    });
    let mut problems = Vec::new();
    for chain in drops {
        let (family, table, name) =
            (text(chain, "family"), text(chain, "table"), text(chain, "name"));
        let rules = objects(&["list", "table", family, table], "rule").unwrap_or_default();
        if rules.iter().any(|rule| rule.to_string().contains(HOST_DEVICE)) {
            continue;
        }
        let found = format!(
            "the firewall drops what this host forwards (nftables chain {family} {table} {name}, \
             policy drop): pods reach other pods but not the world"
        );
        let remedy = format!("accept {HOST_DEVICE} in it: {}", remedy(family, table, name));
        problems.push(Advice::new(found, remedy));
    }
    problems
}

fn remedy(family: &str, table: &str, name: &str) -> String {
    match (family, table) {
        ("ip" | "ip6", "filter") => {
            let tool = if family == "ip" { "iptables" } else { "ip6tables" };
            format!(
                "`{tool} -I {name} -i {HOST_DEVICE} -j ACCEPT` and `{tool} -I {name} -o \
                 {HOST_DEVICE} -j ACCEPT`"
            )
        }
        _ => format!(
            "`nft insert rule {family} {table} {name} iifname {HOST_DEVICE} accept` and the same \
             with oifname"
        ),
    }
}

/// The objects of one kind that `nft -j` lists.
pub(super) fn objects(arguments: &[&str], kind: &str) -> Result<Vec<Value>, KernelError> {
    let text = listing(&[&["-j"], arguments].concat())?;
    let what = || format!("read what nft {} says", arguments.join(" "));
    let mut document: Value = serde_json::from_str(&text).context(what)?;
    let list = document.get_mut("nftables").map(Value::take).unwrap_or_default();
    let list: Vec<Value> = serde_json::from_value(list).context(what)?;
    Ok(list.into_iter().filter_map(|mut object| object.get_mut(kind).map(Value::take)).collect())
}

/// What `nft` prints. Blocks for a moment.
pub(super) fn listing(arguments: &[&str]) -> Result<String, KernelError> {
    let what = || format!("run nft {}", arguments.join(" "));
    let nft = nft::executable().ok_or_else(nft::missing)?;
    let output = Command::new(nft).env("LC_ALL", "C").args(arguments).output().context(what)?;
    if !output.status.success() {
        return Err(refusal(what(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
