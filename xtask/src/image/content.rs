//! What is in the image: the two programs, `nft` with its libraries, certificates of authorities, and the list
//! of all of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::distribution::{self, Foreign, Part};
use crate::platform::Platform;
use crate::{build, command, paths};

const NFT: &str = "/usr/sbin/nft";
/// The package that has it.
const PACKAGE: &str = "nftables";
/// For API servers with a certificate of a public authority.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The list (CycloneDX 1.6).
const LIST: &str = "sbom.cdx.json";

/// A file of the image.
pub(super) struct Entry {
    /// Without the slash in front.
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// All files for a platform, by their paths; the two programs come from a directory.
pub(super) fn files(platform: Platform, binaries: &Path) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    for name in [build::AGENT, build::PLUGIN] {
        files.push(entry(&binaries.join(name), Path::new(name))?);
    }
    let mut parts = if platform == Platform::host() {
        distribution::installed(Path::new(NFT))?
    } else {
        for name in [build::AGENT, build::PLUGIN] {
            distribution::check_machine(&binaries.join(name), platform)?;
        }
        Foreign::new(platform).program(Path::new(NFT))?
    };
    files.iter().try_for_each(ensure_is_anybodys)?;
    // The same for all platforms.
    parts.push(distribution::own(Path::new(AUTHORITIES)));
    for part in &parts {
        files.push(entry(&part.from, &part.to)?);
    }
    let list = serde_json::to_vec_pretty(&list(platform, &parts)?)?;
    files.push(Entry { path: LIST.into(), mode: 0o644, content: list });
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// Fetches what the image for another platform needs of the distribution.
pub(super) fn fetch(platform: Platform) -> Result<()> {
    Foreign::new(platform).fetch(PACKAGE)
}

/// What users install does not say on whose machine it was built.
fn ensure_is_anybodys(program: &Entry) -> Result<()> {
    for place in paths::of_sources() {
        let is_named = program.content.windows(place.len()).any(|text| text == place.as_bytes());
        ensure!(
            !is_named,
            "{} says that its sources were in {place}: `cargo xtask build --release` makes it without",
            program.path.display()
        );
    }
    Ok(())
}

/// What a link leads to, under the name of the link.
fn entry(from: &Path, to: &Path) -> Result<Entry> {
    let read = || Ok::<_, std::io::Error>((fs::read(from)?, fs::metadata(from)?.permissions()));
    let (content, permissions) = read().with_context(|| format!("read {}", from.display()))?;
    let mode = if permissions.mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    Ok(Entry { path: to.to_owned(), mode, content })
}

fn list(platform: Platform, of_distribution: &[Part]) -> Result<Value> {
    let mut components = crates(platform)?;
    components.extend(of_distribution.iter().filter_map(package));
    let components: Vec<Value> = components
        .into_iter()
        .map(|(name, version, purl)| {
            json!({ "type": "library", "name": name, "version": version, "purl": purl })
        })
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "container", "name": "podwire", "version": env!("CARGO_PKG_VERSION"),
        } },
        "components": components,
    }))
}

/// Name, version, and package URL.
type Component = (String, String, String);

/// Those of the two programs, and of the BPF object that is in one of them.
fn crates(platform: Platform) -> Result<BTreeSet<Component>> {
    let mut crates = listed(&["--package", "dataplane-agent", "--package", "cni-shim"], platform)?;
    crates.append(&mut listed(&["--manifest-path", "dataplane-ebpf/Cargo.toml"], platform)?);
    Ok(crates)
}

fn listed(of: &[&str], platform: Platform) -> Result<BTreeSet<Component>> {
    let mut tree = build::cargo();
    tree.args(["tree", "--locked", "--target", platform.target()]).args(of);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let listed = command::output(&mut tree)?;
    let component = |line: &str| {
        // `serde v1.0.0`, and behind it a path or a mark.
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_owned(), version.to_owned(), format!("pkg:cargo/{name}@{version}")))
    };
    Ok(listed.lines().filter_map(component).collect())
}

fn package(part: &Part) -> Option<Component> {
    let mut words = part.package.as_ref()?.split(' ').map(str::to_owned);
    let (name, version, arch) = (words.next()?, words.next()?, words.next()?);
    let purl = format!("pkg:deb/debian/{name}@{version}?arch={arch}");
    Some((name, version, purl))
}
