//! Follows the node file: tells each change once, good or bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::Watcher as _;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::source::News;
use super::{NodeFileError, parse};
use crate::model::{Network, Node};

/// A writer that is not atomic has finished when nothing changes for this long: the first half of a
/// node file is a node file too.
const SETTLE: Duration = Duration::from_millis(300);
/// One that never rests is read then.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// For file systems that tell nothing, and links whose target lies elsewhere.
const POLL: Duration = Duration::from_secs(5);

/// Reads the file after each change and sends what it says, until the receiver is gone.
pub async fn follow(file: PathBuf, own_name: String, network: Network, to: mpsc::Sender<News>) {
    let changed = Arc::new(Notify::new());
    let watcher = watch_directory(&file, Arc::clone(&changed));
    if let Err(error) = &watcher {
        tracing::warn!(file = %file.display(), %error, "cannot watch the node file's directory: \
            looks at it every {} s instead", POLL.as_secs());
    }
    let mut last = None;
    loop {
        let text = tokio::fs::read_to_string(&file).await.map_err(|error| error.to_string());
        if last.as_ref() != Some(&text) {
            let news = match text.clone() {
                Ok(text) => parse_aside(&file, text, &own_name, &network).await,
                Err(error) => Some(Err(gone(&file, &error))),
            };
            last = Some(text);
            let Some(news) = news else { return };
            if to.send(news.into()).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = changed.notified() => settle(&changed).await,
            () = tokio::time::sleep(POLL) => {}
            () = to.closed() => return,
        }
    }
}

async fn settle(changed: &Notify) {
    let silence = async { while timeout(SETTLE, changed.notified()).await.is_ok() {} };
    let _ = timeout(SETTLE_MAX, silence).await;
}

/// In a thread of its own: a file of thousands of nodes must not hold up the sockets. None at the end of
/// the runtime.
async fn parse_aside(
    file: &Path,
    text: String,
    own_name: &str,
    network: &Network,
) -> Option<Result<Vec<Node>, NodeFileError>> {
    let (file, own_name, network) = (file.to_owned(), own_name.to_owned(), network.clone());
    tokio::task::spawn_blocking(move || parse(&file, &text, &own_name, &network)).await.ok()
}

fn gone(file: &Path, error: &str) -> NodeFileError {
    let what = format!("cannot be read: {error}: restore it");
    let fault = super::Fault { line: None, field: String::new(), what };
    NodeFileError { file: file.to_owned(), faults: vec![fault] }
}

/// The directory and not the file: a replaced file is another inode.
fn watch_directory(
    file: &Path,
    changed: Arc<Notify>,
) -> Result<notify::RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let read_only = event.is_ok_and(|event| event.kind.is_access());
        if !read_only {
            changed.notify_one();
        }
    })?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    watcher.watch(directory.unwrap_or(Path::new(".")), notify::RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    const ONE: &str = "[[node]]\nname = \"a\"\naddresses = [\"192.168.1.11\"]\n\
                       pod_cidrs = [\"10.244.1.0/24\"]\n";

    fn read(news: Option<News>) -> Result<Vec<Node>, String> {
        match news.unwrap() {
            News::Nodes(known) => Ok(known.nodes),
            News::Trouble(why) => Err(why),
            News::Current => panic!("a file tells its content"),
        }
    }

    #[tokio::test]
    async fn edits_replacement_garbage_and_deletion() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodes.toml");
        fs::write(&file, ONE).unwrap();
        let (to, mut from) = mpsc::channel(4);
        let task = tokio::spawn(follow(file.clone(), "a".to_owned(), Network::default(), to));
        let mut next =
            async || read(tokio::time::timeout(Duration::from_secs(4), from.recv()).await.unwrap());
        assert_eq!(next().await.unwrap().len(), 1);
        fs::write(&file, format!("{ONE}{}", ONE.replace("\"a\"", "\"b\"").replace(".1.", ".2.")))
            .unwrap();
        assert_eq!(next().await.unwrap().len(), 2);
        let other = directory.path().join("new");
        fs::write(&other, ONE).unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(next().await.unwrap().len(), 1);
        fs::write(&file, "[[node]\n").unwrap();
        assert!(next().await.unwrap_err().contains("nodes.toml:1: "));
        fs::remove_file(&file).unwrap();
        assert!(next().await.unwrap_err().contains("last good content"));
        fs::write(&file, ONE).unwrap();
        assert!(next().await.is_ok());
        drop(from);
        tokio::time::timeout(Duration::from_secs(4), task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_slow_writer_is_read_when_it_rests() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodes.toml");
        let node = |n: u8| {
            ONE.replace("\"a\"", &format!("\"{}\"", char::from(b'a' + n)))
                .replace(".1.", &format!(".{}.", n + 1))
        };
        let whole: String = (0..5).map(node).collect();
        fs::write(&file, &whole).unwrap();
        let (to, mut from) = mpsc::channel(4);
        let task = tokio::spawn(follow(file.clone(), "a".to_owned(), Network::default(), to));
        assert_eq!(read(from.recv().await).unwrap().len(), 5);
        let mut slow = tokio::time::interval(Duration::from_millis(150));
        let mut writer = fs::File::create(&file).unwrap();
        for n in 0..6 {
            writer.write_all(node(n).as_bytes()).unwrap();
            slow.tick().await;
        }
        let news = tokio::time::timeout(Duration::from_secs(4), from.recv()).await;
        assert_eq!(read(news.unwrap()).unwrap().len(), 6, "half of the file");
        // One that never rests is read all the same.
        let mut often = tokio::time::interval(SETTLE / 4);
        let restless = tokio::spawn(async move {
            loop {
                writer.write_all(b"# more\n").unwrap();
                often.tick().await;
            }
        });
        let news = tokio::time::timeout(SETTLE_MAX * 2, from.recv()).await;
        assert_eq!(read(news.unwrap()).unwrap().len(), 6);
        restless.abort();
        task.abort();
    }
}
