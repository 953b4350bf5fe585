//! Tells whether the sources of the BPF object changed: by content, never by time.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

/// What the object is made from.
const SOURCES: [&str; 3] = ["dataplane-ebpf", "dataplane-core", "Cargo.toml"];
/// What lies among them and is none.
const NO_SOURCES: [&str; 2] = ["target", "budget.toml"];

/// Returns a stamp that changes with any source or setting.
pub(super) fn of(root: &Path, settings: &[String]) -> Result<String> {
    let mut hash = Sha256::new();
    for setting in settings {
        add(&mut hash, setting.as_bytes());
    }
    for source in SOURCES {
        let files = WalkDir::new(root.join(source))
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| NO_SOURCES.iter().all(|name| entry.file_name() != *name));
        for file in files {
            let file = file.with_context(|| format!("list the sources in {source}"))?;
            if file.file_type().is_file() {
                let path = file.path();
                add(&mut hash, path.strip_prefix(root)?.as_os_str().as_encoded_bytes());
                add(&mut hash, &fs::read(path).with_context(|| path.display().to_string())?);
            }
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Adds one part with its length, so that no two lists of parts look the same.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update(part.len().to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn the_stamp_changes_with_sources_and_settings_only() {
        let root = env::temp_dir().join(format!("podwire-stamp-{}", process::id()));
        for source in ["dataplane-ebpf/src", "dataplane-ebpf/target", "dataplane-core"] {
            fs::create_dir_all(root.join(source)).unwrap();
        }
        let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
        write("Cargo.toml", "");
        write("dataplane-ebpf/src/main.rs", "a");
        let stamp = |settings: &str| of(&root, &[settings.to_owned()]).unwrap();

        let first = stamp("v3");
        write("dataplane-ebpf/target/junk", "x");
        write("dataplane-ebpf/budget.toml", "x");
        assert_eq!(stamp("v3"), first);
        assert_ne!(stamp("v4"), first);
        write("dataplane-ebpf/src/main.rs", "b");
        assert_ne!(stamp("v3"), first);
        fs::remove_dir_all(root).unwrap();
    }
}
