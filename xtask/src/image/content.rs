//! What is in the image: the two programs, `nft` with its libraries, certificates of authorities, and the list
//! of all of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{build, command};

/// Packages that make it: see `set_up`.
const PROGRAMS: [&str; 2] = ["podwire-agent", "podwire"];
const NFT: &str = "/usr/sbin/nft";
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

/// All files, by their paths; the two programs come from a directory.
pub(super) fn files(binaries: &Path) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    for name in PROGRAMS {
        files.push(entry(&binaries.join(name), Path::new(name))?);
    }
    let mut of_distribution: BTreeSet<PathBuf> = libraries(Path::new(NFT))?;
    of_distribution.extend([NFT, AUTHORITIES].map(PathBuf::from));
    for path in &of_distribution {
        files.push(entry(path, path.strip_prefix("/")?)?);
    }
    let list = serde_json::to_vec_pretty(&list(&of_distribution)?)?;
    files.push(Entry { path: LIST.into(), mode: 0o644, content: list });
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// What a link leads to, under the name of the link.
fn entry(from: &Path, to: &Path) -> Result<Entry> {
    let read = || Ok::<_, std::io::Error>((fs::read(from)?, fs::metadata(from)?.permissions()));
    let (content, permissions) = read().with_context(|| format!("read {}", from.display()))?;
    let mode = if permissions.mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    Ok(Entry { path: to.to_owned(), mode, content })
}

/// The loader and the libraries of a program: `libc.so.6 => /lib/libc.so.6 (0x1234)`.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let listed = command::output(Command::new("ldd").arg(program))?;
    let words = listed.split_whitespace();
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn list(of_distribution: &BTreeSet<PathBuf>) -> Result<Value> {
    let mut components = crates()?;
    components.extend(packages(of_distribution)?);
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

fn crates() -> Result<BTreeSet<Component>> {
    let mut tree = build::cargo();
    tree.args(["tree", "--locked", "--package", "dataplane-agent", "--package", "cni-shim"]);
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

/// A library may be known under its name before `/usr` was merged, or after.
fn packages(files: &BTreeSet<PathBuf>) -> Result<BTreeSet<Component>> {
    let mut packages = BTreeSet::new();
    for file in files {
        let Some(package) = package_of(file) else { continue };
        let format = "--showformat=${Package} ${Version} ${Architecture}";
        let shown = command::output(Command::new("dpkg-query").args(["--show", format, &package]))?;
        let mut words = shown.split_whitespace().map(str::to_owned);
        if let (Some(name), Some(version), Some(arch)) = (words.next(), words.next(), words.next())
        {
            let purl = format!("pkg:deb/debian/{name}@{version}?arch={arch}");
            packages.insert((name, version, purl));
        }
    }
    Ok(packages)
}

fn package_of(file: &Path) -> Option<String> {
    let merged = Path::new("/usr").join(file.strip_prefix("/").ok()?);
    [file, merged.as_path()].into_iter().find_map(|file| {
        let found = command::output(Command::new("dpkg-query").arg("--search").arg(file)).ok()?;
        Some(found.rsplit_once(": ")?.0.split(',').next()?.to_owned())
    })
}
