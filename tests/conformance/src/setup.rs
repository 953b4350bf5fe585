//! What is tested: the plugin, its configuration, and the place where it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::namespace::Namespace;

/// Versions of the specification that the kit knows, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// It makes an interface in the container.
    Interface,
    /// It changes what earlier plugins of a list made.
    Chained,
    /// It gives addresses to other plugins.
    Ipam,
}

/// A plugin with its part of the network configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The program.
    pub path: PathBuf,
    /// The configuration with `name`, and without `cniVersion`.
    pub config: Value,
}

/// All that checks need to know.
#[derive(Debug)]
pub struct Setup {
    /// The plugin under test.
    pub plugin: Plugin,
    /// Those before it in the list, if it is a chained one.
    pub before: Vec<Plugin>,
    /// What it is.
    pub kind: Kind,
    /// The version of all checks that do not name another one.
    pub version: &'static str,
    /// All versions that plugin and kit have in common, oldest first.
    pub versions: Vec<&'static str>,
    /// `CNI_PATH`.
    pub cni_path: String,
    /// How many attachments the network has room for, if that is known.
    pub pool: Option<usize>,
    /// Longest time of one call.
    pub limit: Duration,
    /// Where the runtime would run.
    pub host: Namespace,
    /// Interfaces of the host that attachments share, such as a bridge.
    pub shared: BTreeSet<String>,
}

impl Setup {
    /// The type of the delegated plugin for addresses, if there is one.
    pub fn delegate(&self) -> Option<&str> {
        (self.kind != Kind::Ipam).then(|| self.plugin.config["ipam"]["type"].as_str())?
    }

    /// Uses no version after this one.
    ///
    /// # Errors
    /// When none is left.
    pub fn limit_versions(&mut self, newest: &str) -> Result<()> {
        self.versions.retain(|version| at_least(newest, version));
        let all = || format!("the plugin supports no version up to {newest}");
        self.version = self.versions.last().with_context(all)?;
        Ok(())
    }

    /// Whether plugin and kit have this version in common.
    pub fn has(&self, version: &str) -> bool {
        self.versions.contains(&version)
    }
}

/// Whether a version is not older than another one. Both are of those that the kit knows.
pub fn at_least(version: &str, other: &str) -> bool {
    let place = |wanted: &str| VERSIONS.iter().position(|version| *version == wanted);
    place(version) >= place(other)
}

/// Reads a network configuration, of one plugin or of a list, and finds the plugin's part of it: that
/// with the name of its file as `type`, or else the first.
///
/// # Errors
/// When it is no network configuration, or an earlier plugin of the list is not in `cni_path`.
pub fn read(
    text: &str,
    path: &Path,
    cni_path: &str,
) -> Result<(Plugin, Vec<Plugin>, Option<Kind>)> {
    let network: Value = serde_json::from_str(text).context("it is not JSON")?;
    let name = network["name"].as_str().context("it has no \"name\"")?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let single = [network.clone()];
    let parts = network["plugins"].as_array().map_or(&single[..], Vec::as_slice);
    ensure!(!parts.is_empty(), "its \"plugins\" are empty");
    let index = parts.iter().position(|part| part["type"] == *file).unwrap_or(0);
    let request = |part: &Value| request(part, name);
    let mut before = Vec::new();
    for part in &parts[..index] {
        let kind = part["type"].as_str().context("a plugin without \"type\"")?;
        before.push(Plugin { path: find(kind, cni_path)?, config: request(part)? });
    }
    let plugin = Plugin { path: path.to_owned(), config: request(&parts[index])? };
    let kind = if index > 0 {
        Some(Kind::Chained)
    } else if plugin.config["ipam"]["type"] == *file {
        Some(Kind::Ipam)
    } else {
        None
    };
    Ok((plugin, before, kind))
}

/// Derives what a runtime gives to a plugin (section 3 of the specification), but for `cniVersion`.
fn request(part: &Value, name: &str) -> Result<Value> {
    let mut request: Map<String, Value> =
        part.as_object().context("a plugin's configuration is no object")?.clone();
    for key in ["capabilities", "cniVersion", "cniVersions", "disableCheck", "disableGC"] {
        request.remove(key);
    }
    request.insert("name".to_owned(), name.into());
    Ok(Value::Object(request))
}

/// Finds a program in a list of directories.
///
/// # Errors
/// When it is in none.
pub fn find(name: &str, cni_path: &str) -> Result<PathBuf> {
    let found = cni_path.split(':').map(|dir| Path::new(dir).join(name)).find(|p| p.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("no {name} in {cni_path:?}: name its directory with --cni-path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_derived_as_runtimes_do() {
        let text = r#"{"cniVersion":"1.0.0","name":"n","plugins":[
            {"type":"sh","a":1},{"type":"tuning","capabilities":{"mac":true},"b":2}]}"#;
        let (plugin, before, kind) = read(text, Path::new("/x/tuning"), "/bin").unwrap();
        assert_eq!(plugin.config, serde_json::json!({"name":"n","type":"tuning","b":2}));
        assert_eq!(before[0].path, Path::new("/bin/sh"));
        assert_eq!(kind, Some(Kind::Chained));
        let (plugin, before, kind) = read(text, Path::new("/x/other"), "/bin").unwrap();
        assert_eq!((plugin.config["a"].as_u64(), before.len(), kind), (Some(1), 0, None));
    }

    #[test]
    fn an_address_plugin_is_known_by_its_configuration() {
        let text = r#"{"name":"n","type":"x","ipam":{"type":"host-local"}}"#;
        let (.., kind) = read(text, Path::new("/usr/lib/cni/host-local"), "").unwrap();
        assert_eq!(kind, Some(Kind::Ipam));
    }

    #[test]
    fn versions_are_ordered() {
        assert!(at_least("1.0.0", "0.4.0") && at_least("0.3.1", "0.3.1"));
        assert!(!at_least("0.3.1", "0.4.0"));
    }
}
