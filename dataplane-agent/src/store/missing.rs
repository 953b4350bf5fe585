//! What the last sweep missed, for the agent that comes next: an agent that is restarted often frees, too.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Store, StoreError, io_error, remove_file, write_whole};

pub(super) const FILE: &str = "missing.json";

impl Store {
    /// Writes down what a sweep missed; when it missed nothing there is no file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_missing(&self, names: &BTreeSet<String>) -> Result<(), StoreError> {
        let path = self.missing_path();
        if names.is_empty() {
            return remove_file(&path);
        }
        let text = serde_json::to_vec(names).map_err(io::Error::other);
        write_whole(&path, &text.map_err(io_error("cannot write", &path))?)
    }

    /// What the last sweep missed, and how long ago. What cannot be read is seen again.
    pub fn missing(&self) -> (BTreeSet<String>, Duration) {
        let path = self.missing_path();
        let text = fs::read(&path).unwrap_or_default();
        let names = serde_json::from_slice(&text).unwrap_or_default();
        let at = path.metadata().and_then(|file| file.modified()).ok();
        let age = at.and_then(|at| SystemTime::now().duration_since(at).ok());
        (names, age.unwrap_or_default())
    }

    fn missing_path(&self) -> PathBuf {
        self.directory.join(FILE)
    }
}
