//! Values below `/proc/sys`, of the namespace of the calling thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::error::Context as _;
use crate::kernel::KernelError;

/// Where they can be written.
pub(super) struct Sysctls(pub(super) PathBuf);

impl Sysctls {
    /// Those of the paths that exist.
    pub(super) fn read(
        &self,
        paths: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, KernelError> {
        let mut values = BTreeMap::new();
        for path in paths {
            let file = self.0.join(path);
            match fs::read_to_string(&file) {
                Ok(value) => {
                    values.insert(path.clone(), value.trim_end().to_owned());
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(|| format!("read {}", file.display())),
            }
        }
        Ok(values)
    }

    pub(super) fn write(&self, path: &str, value: &str) -> Result<(), KernelError> {
        let file = self.0.join(path);
        fs::write(&file, value).context(|| {
            format!(
                "write {value:?} to {} (in a container, mount the host's /proc/sys/net elsewhere, and name \
                 that place with --sysctl-dir)",
                file.display()
            )
        })
    }
}
