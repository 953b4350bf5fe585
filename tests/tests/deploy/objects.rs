//! Rendered objects, and how they differ.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the DaemonSet is called among objects.
pub(super) const DAEMON_SET: &str = "DaemonSet kube-system/podwire";
/// Long paths, and how differences call them.
const SHORT: [(&str, &str); 4] = [
    ("DaemonSet kube-system/podwire/spec/template/spec/containers/agent/", "agent/"),
    ("DaemonSet kube-system/podwire/spec/template/spec/initContainers/doctor/", "doctor/"),
    ("DaemonSet kube-system/podwire/spec/template/spec/", "pod/"),
    ("DaemonSet kube-system/podwire/", "set/"),
];

/// What a rendering gives.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    /// By kind, namespace and name.
    pub(super) objects: BTreeMap<String, Value>,
    /// What Helm tells who has installed a chart.
    pub(super) notes: String,
    /// The chart's own values.
    pub(super) defaults: Value,
}

/// The chart with these values beside its own.
pub(super) fn chart(values: &Value) -> Result<Rendered> {
    release("podwire", "kube-system", values)
}

/// The same as another release.
pub(super) fn release(name: &str, namespace: &str, values: &Value) -> Result<Rendered> {
    let release = json!({"release": name, "namespace": namespace, "values": values});
    render("chart", "deploy/helm/podwire", release)
}

/// The chart, whatever its schema says.
pub(super) fn unchecked_chart(values: &Value) -> Result<Rendered> {
    let more = json!({"namespace": "kube-system", "values": values, "unchecked": true});
    render("chart", "deploy/helm/podwire", more)
}

/// The manifest, or a directory of Kustomize.
pub(super) fn render(what: &str, path: &str, more: Value) -> Result<Rendered> {
    let mut answer = tests::render::render(what, path, more)?;
    let mut objects = BTreeMap::new();
    for object in answer["objects"].as_array().context("objects")? {
        let meta = &object["metadata"];
        let namespace = meta["namespace"].as_str().map(|name| format!("{name}/"));
        let (kind, name) = (object["kind"].as_str(), meta["name"].as_str());
        let name = format!(
            "{} {}{}",
            kind.context("kind")?,
            namespace.unwrap_or_default(),
            name.context("name")?
        );
        ensure!(objects.insert(name.clone(), object.clone()).is_none(), "{name} is there twice");
    }
    let notes = answer["notes"].as_str().unwrap_or_default().to_owned();
    Ok(Rendered { objects, notes, defaults: answer["defaults"].take() })
}

/// All differences, a line each: where, and the value before and after.
pub(super) fn differences(before: &Rendered, after: &Rendered) -> Vec<String> {
    let (before, after) = (leaves(before), leaves(after));
    let places = before.keys().chain(after.keys().filter(|place| !before.contains_key(*place)));
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let mut lines: Vec<String> = places
        .filter(|place| before.get(*place) != after.get(*place))
        .map(|place| {
            let (before, after) = (text(before.get(place)), text(after.get(place)));
            format!("{}: {before} -> {after}", short(place))
        })
        .collect();
    lines.sort();
    lines
}

/// The container of the agent.
pub(super) fn agent(rendered: &Rendered) -> Result<&Value> {
    let set = rendered.objects.get(DAEMON_SET).context("no DaemonSet")?;
    let containers = set["spec"]["template"]["spec"]["containers"].as_array();
    let is_agent = |container: &&Value| container["name"] == "agent";
    containers.into_iter().flatten().find(is_agent).context("no container `agent`")
}

/// A list of strings.
pub(super) fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn short(place: &str) -> String {
    let found = SHORT
        .iter()
        .find_map(|(long, short)| place.strip_prefix(long).map(|rest| format!("{short}{rest}")));
    found.unwrap_or_else(|| place.to_owned())
}

fn leaves(rendered: &Rendered) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (name, object) in &rendered.objects {
        collect(name.clone(), object, &mut leaves);
    }
    leaves
}

fn collect(at: String, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                collect(format!("{at}/{name}"), value, leaves);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (name, value) in item_names(items).iter().zip(items) {
                collect(format!("{at}/{name}"), value, leaves);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            leaves.insert(at, value.clone());
        }
    }
}

/// Names of the items of a list, such as those of containers and volumes; numbers where they have none of their own.
fn item_names(items: &[Value]) -> Vec<String> {
    let names: Vec<&str> = items.iter().filter_map(|item| item["name"].as_str()).collect();
    if names.iter().collect::<BTreeSet<_>>().len() == items.len() {
        return names.into_iter().map(str::to_owned).collect();
    }
    (0..items.len()).map(|number| number.to_string()).collect()
}

/// Values whose content is somebody else's: of Kubernetes, or the user's own names.
const WHOLE: [&str; 5] = ["affinity", "nodeSelector", "podAnnotations", "podLabels", "resources"];

/// All values by their names, such as `vxlan.port`.
pub(super) fn named(values: &Value) -> BTreeMap<String, Value> {
    let mut named = BTreeMap::new();
    for (name, value) in values.as_object().into_iter().flatten() {
        match value.as_object().filter(|_| !WHOLE.contains(&name.as_str())) {
            Some(group) => {
                named.extend(group.iter().map(|(key, v)| (format!("{name}.{key}"), v.clone())));
            }
            None => drop(named.insert(name.clone(), value.clone())),
        }
    }
    named
}
