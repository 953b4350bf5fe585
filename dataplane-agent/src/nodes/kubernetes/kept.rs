//! What an earlier agent knew of the nodes, on disk: an agent that starts while the API server is away goes
//! on with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::seen::Seen;
use crate::store::{NODES_FILE, write_whole};

/// Of the file's content.
const VERSION: u32 = 1;
/// How often the file says that its content was still right.
const TOUCH_EVERY: Duration = Duration::from_secs(30);
/// Between two writes, when nodes change all the time.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Content<N> {
    version: u32,
    nodes: N,
}

/// The file. Its content is all that is known; its time of change, when that was known to be right.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    written: Option<Instant>,
    touched: Option<Instant>,
    is_due: bool,
    problem: Option<String>,
}

/// What the file has.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) nodes: BTreeMap<String, Seen>,
    /// When it was right.
    pub(super) as_of: Option<SystemTime>,
    /// Why it is ignored.
    pub(super) fault: Option<String>,
}

impl Kept {
    /// In this directory.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(NODES_FILE),
            written: None,
            touched: None,
            is_due: false,
            problem: None,
        }
    }

    /// Reads the file. One that cannot be used is said and ignored.
    pub(super) fn load(&self) -> Found {
        let fault = |why: String| Found {
            fault: Some(format!("{}: {why}; it is ignored", self.path.display())),
            ..Found::default()
        };
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::default(),
            Err(error) => return fault(format!("cannot be read: {error}")),
        };
        match serde_json::from_slice::<Content<BTreeMap<String, Seen>>>(&text) {
            Err(error) => fault(format!("damaged: {error}")),
            Ok(content) if content.version != VERSION => {
                fault(format!("of another version ({})", content.version))
            }
            Ok(content) => {
                let as_of = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
                Found { nodes: content.nodes, as_of, fault: None }
            }
        }
    }

    /// The nodes have changed: they are written at the next [`Kept::keep`].
    pub(super) fn changed(&mut self) {
        self.is_due = true;
    }

    /// When the next write is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_due.then(|| self.written.map_or_else(Instant::now, |written| written + PAUSE))
    }

    /// Writes what has changed, or says that nothing has: call it while the API server is heard.
    pub(super) fn keep(&mut self, nodes: &BTreeMap<String, Seen>) {
        let now = Instant::now();
        let has_passed =
            |since: Option<Instant>, time| since.is_none_or(|since| since + time <= now);
        let result = if self.is_due && has_passed(self.written, PAUSE) {
            self.written = Some(now);
            self.touched = Some(now);
            self.write(nodes).inspect(|()| self.is_due = false)
        } else if has_passed(self.touched, TOUCH_EVERY) {
            self.touched = Some(now);
            self.touch()
        } else {
            return;
        };
        let problem = result.err().map(|error| error.to_string());
        if let Some(problem) = problem.as_ref().filter(|_| self.problem != problem) {
            tracing::error!(
                "{problem}: an agent that starts while the API server is away will not \
                know the nodes"
            );
        }
        self.problem = problem;
    }

    /// When [`Kept::keep`] has something to do though nothing has changed.
    pub(super) fn touch_at(&self) -> Instant {
        self.touched.map_or_else(Instant::now, |touched| touched + TOUCH_EVERY)
    }

    fn write(&self, nodes: &BTreeMap<String, Seen>) -> Result<(), String> {
        let content = Content { version: VERSION, nodes };
        let text = serde_json::to_vec(&content).map_err(|error| error.to_string())?;
        write_whole(&self.path, &text).map_err(|error| error.to_string())
    }

    /// A file that somebody removed is written again.
    fn touch(&mut self) -> Result<(), String> {
        let touched = File::options()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        match touched {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.is_due = true,
            Err(error) => return Err(format!("cannot touch {}: {error}", self.path.display())),
            Ok(()) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> BTreeMap<String, Seen> {
        let seen =
            Seen { created: 7, pod_cidrs: vec!["10.244.1.0/24".to_owned()], ..Seen::default() };
        BTreeMap::from([("a".to_owned(), seen)])
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_found_and_says_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(directory.path());
        assert!(kept.load().nodes.is_empty() && kept.load().fault.is_none());
        kept.changed();
        kept.keep(&nodes());
        let found = kept.load();
        assert_eq!(found.nodes, nodes());
        let old = SystemTime::now() - Duration::from_secs(1_000);
        let file = File::options().write(true).open(directory.path().join(NODES_FILE)).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(kept.load().as_of, Some(old));
        kept.keep(&nodes());
        assert_eq!(kept.load().as_of, Some(old), "not at every call");
        tokio::time::advance(TOUCH_EVERY).await;
        kept.keep(&nodes());
        assert!(kept.load().as_of.unwrap() > old);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_written_once_a_second_and_after_removal() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(directory.path());
        kept.changed();
        kept.keep(&BTreeMap::new());
        kept.changed();
        kept.keep(&nodes());
        assert!(kept.load().nodes.is_empty());
        tokio::time::advance(PAUSE).await;
        assert!(kept.due().unwrap() <= Instant::now());
        kept.keep(&nodes());
        assert_eq!(kept.load().nodes.len(), 1);
        assert_eq!(kept.due(), None);
        fs::remove_file(directory.path().join(NODES_FILE)).unwrap();
        tokio::time::advance(TOUCH_EVERY).await;
        kept.keep(&nodes());
        kept.keep(&nodes());
        assert_eq!(kept.load().nodes.len(), 1);
    }

    #[tokio::test]
    async fn what_is_damaged_is_ignored_and_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(directory.path());
        kept.changed();
        kept.keep(&nodes());
        let path = directory.path().join(NODES_FILE);
        let good = fs::read_to_string(&path).unwrap();
        let half = &good[..good.len() / 2];
        for (text, words) in [
            (half, "damaged"),
            ("", "damaged"),
            ("\0\0\0", "damaged"),
            (&good.replace("\"version\":1", "\"version\":2"), "another version (2)"),
        ] {
            fs::write(&path, text).unwrap();
            let found = kept.load();
            assert!(found.nodes.is_empty());
            let fault = found.fault.unwrap();
            assert!(fault.contains(words) && fault.contains("nodes.json"), "{fault}");
        }
    }
}
