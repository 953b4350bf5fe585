//! Files of ours in directories that others may use, too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What in a directory has a name of ours, in order; nothing where there is no such directory.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn list(directory: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_ours) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_nothing_of_ours() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::write(parent.path().join(name), "").unwrap();
        }
        let found = list(parent.path(), |name| name != "c").unwrap();
        assert_eq!(found, ["a", "b"].map(|name| parent.path().join(name)));
        assert!(list(&parent.path().join("missing"), |_| true).unwrap().is_empty());
        assert!(list(&parent.path().join("a"), |_| true).is_err());
    }
}
