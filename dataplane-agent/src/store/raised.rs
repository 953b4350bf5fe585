//! What uplinks had before they were raised for BIG TCP, for whoever puts it back.

use std::fs;
use std::io;
use std::path::Path;

use super::{Store, StoreError, io_error, remove_file, write_whole};
use crate::kernel::AllRaised;

pub(super) const FILE: &str = "uplinks.json";

impl Store {
    /// Writes it down; when no uplink is raised there is no file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_raised(&self, raised: &AllRaised) -> Result<(), StoreError> {
        let path = self.directory.join(FILE);
        if raised.is_empty() {
            return remove_file(&path);
        }
        let text = serde_json::to_vec_pretty(raised).map_err(io::Error::other);
        write_whole(&path, &text.map_err(io_error("cannot write", &path))?)
    }

    /// Whether the file is there, if there should be one.
    pub fn has_raised(&self, raised: &AllRaised) -> bool {
        raised.is_empty() || self.directory.join(FILE).exists()
    }

    /// What is written down.
    pub fn raised(&self) -> AllRaised {
        raised(&self.directory)
    }
}

/// What is written down in a state directory. What cannot be read is nobody's to put back.
pub fn raised(directory: &Path) -> AllRaised {
    serde_json::from_slice(&fs::read(directory.join(FILE)).unwrap_or_default()).unwrap_or_default()
}
