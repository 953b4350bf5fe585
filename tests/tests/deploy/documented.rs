//! Values, their schema and their documentation name the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::render::file;

use super::objects::{chart, named};

/// Helm's own, which has no place among the chart's values.
const OF_HELM: &str = "global";

#[test]
fn the_schema_knows_the_values_and_no_others() -> Result<()> {
    let text = fs::read_to_string(file("deploy/helm/podwire/values.schema.json"))?;
    let schema: Value = serde_json::from_str(&text)?;
    let mut known: BTreeSet<String> = BTreeSet::new();
    let values = named(&chart(&json!({}))?.defaults);
    for (name, rule) in schema["properties"].as_object().context("properties")? {
        let group = rule["properties"].as_object().filter(|_| !values.contains_key(name));
        match group {
            Some(group) => known.extend(group.keys().map(|key| format!("{name}.{key}"))),
            None => drop(known.insert(name.clone())),
        }
    }
    ensure!(known.remove(OF_HELM), "no {OF_HELM}");
    assert_eq!(known, values.into_keys().collect());
    Ok(())
}

#[test]
fn the_table_in_the_documents_has_the_values() -> Result<()> {
    let text = fs::read_to_string(file("docs/kubernetes.md"))?;
    let section = text.split("\n## ").find(|part| part.starts_with("Install with Helm\n"));
    let rows = section.context("no section `Install with Helm`")?.lines();
    let told: BTreeMap<String, String> = rows.filter_map(row).collect();
    let values = named(&chart(&json!({}))?.defaults);
    let values = values.into_iter().map(|(name, value)| {
        let text = value.as_str().filter(|text| !text.is_empty());
        (name, text.map_or_else(|| value.to_string(), str::to_owned))
    });
    assert_eq!(told, values.collect());
    Ok(())
}

/// Reads a row such as ``| `mtu` | `0` | the largest packet |``.
fn row(line: &str) -> Option<(String, String)> {
    let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
    let name = cells.next()?.trim_matches('`').to_owned();
    Some((name, cells.next()?.trim_matches('`').to_owned()))
}
