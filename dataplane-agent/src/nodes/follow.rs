//! Follows the node file: tells each change once, good or bad.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{Event, Watcher as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::NodeFile;
use super::source::News;

/// A writer that is not atomic has finished when nothing changes for this long: the first half of a
/// node file is a node file too.
const SETTLE: Duration = Duration::from_millis(300);
/// One that never rests is read then.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// For file systems that tell nothing, and links whose target lies elsewhere.
const POLL: Duration = Duration::from_secs(5);

/// What the watcher tells.
#[derive(Default)]
struct Changes {
    changed: Notify,
    /// Another file took the place of the node file: it is whole.
    is_whole: AtomicBool,
}

/// Reads the file after each change and sends what it says, until the receiver is gone.
pub async fn follow(mut file: NodeFile, to: mpsc::Sender<News>) {
    let changes = Arc::new(Changes::default());
    let watcher = watch_directory(file.path(), Arc::clone(&changes));
    if let Err(error) = &watcher {
        tracing::warn!(file = %file.path().display(), %error, "cannot watch the node file's directory: \
            looks at it every {} s instead", POLL.as_secs());
    }
    loop {
        // In a thread of its own: a file of thousands of nodes must not hold up the sockets.
        let read = tokio::task::spawn_blocking(move || {
            let news = file.news();
            (file, news)
        });
        // No result: the runtime ends.
        let Ok((same, news)) = read.await else { return };
        file = same;
        if let Some(news) = news
            && to.send(news.into()).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = changes.changed.notified() => settle(&changes).await,
            () = tokio::time::sleep(POLL) => {}
            () = to.closed() => return,
        }
    }
}

async fn settle(changes: &Changes) {
    let silence = async {
        while !changes.is_whole.swap(false, Ordering::AcqRel)
            && timeout(SETTLE, changes.changed.notified()).await.is_ok()
        {}
    };
    let _ = timeout(SETTLE_MAX, silence).await;
}

/// The directory and not the file: a replaced file is another inode.
fn watch_directory(
    file: &Path,
    changes: Arc<Changes>,
) -> Result<notify::RecommendedWatcher, notify::Error> {
    let name = file.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.as_ref().is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        let takes_its_place = event.is_ok_and(|event| {
            event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::To))
                && event.paths.iter().any(|path| path.file_name() == name.as_deref())
        });
        if takes_its_place {
            changes.is_whole.store(true, Ordering::Release);
        }
        changes.changed.notify_one();
    })?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    watcher.watch(directory.unwrap_or(Path::new(".")), notify::RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::time::Instant;

    use super::*;
    use crate::model::{Network, Node};

    const ONE: &str = "[[node]]\nname = \"a\"\naddresses = [\"192.168.1.11\"]\n\
                       pod_cidrs = [\"10.244.1.0/24\"]\n";

    fn node_file(file: &Path) -> NodeFile {
        NodeFile::new(file.to_owned(), "a".to_owned(), Network::default())
    }

    fn read(news: Option<News>) -> Result<Vec<Arc<Node>>, String> {
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
        let task = tokio::spawn(follow(node_file(&file), to));
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
        let task = tokio::spawn(follow(node_file(&file), to));
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

    #[tokio::test]
    async fn a_file_that_takes_its_place_is_read_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("nodes.toml"), directory.path().join("new"));
        fs::write(&file, ONE).unwrap();
        let (to, mut from) = mpsc::channel(4);
        let task = tokio::spawn(follow(node_file(&file), to));
        assert!(read(from.recv().await).is_ok());
        let mut times = Vec::new();
        for n in 2..8 {
            fs::write(&other, ONE.replace("1.11", &format!("1.{n}"))).unwrap();
            let start = Instant::now();
            fs::rename(&other, &file).unwrap();
            let news = timeout(Duration::from_secs(4), from.recv()).await.unwrap();
            times.push(start.elapsed());
            assert!(read(news).unwrap()[0].addresses[0].to_string().ends_with(&n.to_string()));
        }
        assert!(times.iter().any(|time| *time < SETTLE), "{times:?}");
        task.abort();
    }
}
