//! Values below `/proc/sys`, of the namespace of the calling thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::Context as _;
use crate::kernel::KernelError;

/// Those of the paths that exist.
pub(super) fn read(paths: &BTreeSet<String>) -> Result<BTreeMap<String, String>, KernelError> {
    let mut values = BTreeMap::new();
    for path in paths {
        match fs::read_to_string(file(path)) {
            Ok(value) => {
                values.insert(path.clone(), value.trim_end().to_owned());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(|| format!("read {}", file(path).display())),
        }
    }
    Ok(values)
}

pub(super) fn write(path: &str, value: &str) -> Result<(), KernelError> {
    fs::write(file(path), value).context(|| {
        format!(
            "write {value:?} to {} (in a container, /proc/sys/net must be mounted writable)",
            file(path).display()
        )
    })
}

fn file(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}
