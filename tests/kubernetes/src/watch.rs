//! What the API server tells whoever watches, with the time at which it was heard.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::command::Process;
use serde_json::Value;

use crate::kubectl::Kubectl;

/// A watch, by `kubectl`: no part of the agents. It first tells of every object that there is.
///
/// The API server ends a watch whose reader is slow (`forceWatcherClose` of its cache); it goes on behind the last event
/// then, as every client's does.
#[derive(Debug)]
pub(crate) struct Watch {
    heard: Receiver<Result<Heard>>,
    _kubectl: Arc<Mutex<Process>>,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub(crate) kind: String,
    pub(crate) object: Value,
}

impl Heard {
    /// The object's name.
    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// That of the collection behind this event, a growing number (Kubernetes API concepts, "Resource versions").
    fn version(&self) -> u64 {
        let version = self.object["metadata"]["resourceVersion"].as_str();
        version.and_then(|version| version.parse().ok()).unwrap_or_default()
    }
}

impl Watch {
    /// Begins to watch a collection, `/api/v1/nodes`, with further words of the query.
    pub(crate) fn new(kubectl: &Kubectl, collection: &str, query: &str) -> Result<Self> {
        let path = format!("{collection}?watch=1&timeoutSeconds=7200{query}");
        let kubectl = kubectl.clone();
        let start = move |version: u64| start(&kubectl, &path, version);
        // From the server's cache: etcd before 3.4.31 cannot tell it whether that is the newest.
        let (process, stdout) = start(0)?;
        let process = Arc::new(Mutex::new(process));
        let (sender, heard) = mpsc::channel();
        let running = Arc::downgrade(&process);
        thread::spawn(move || {
            listen_again(stdout, &sender, |version| {
                let running = running.upgrade()?;
                Some(start(version).map(|(process, stdout)| {
                    *running.lock().unwrap_or_else(PoisonError::into_inner) = process;
                    stdout
                }))
            });
        });
        Ok(Self { heard, _kubectl: process })
    }

    /// Waits until `look` finds something in an event.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&Heard) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(heard) => {
                    if let Some(found) = look(&heard?) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("waited {timeout:?} for {what}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the watch ended before {what}"),
            }
        }
    }
}

/// Events behind a version of the collection.
fn start(kubectl: &Kubectl, path: &str, version: u64) -> Result<(Process, ChildStdout)> {
    let mut command = kubectl.service();
    command.args(["get", "--raw", &format!("{path}&resourceVersion={version}")]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("kubectl")?;
    let stdout = child.stdout.take().context("its output")?;
    Ok((Process::new(child), stdout))
}

/// Listens, and where a watch ends behind events, to another one behind the last of them, if there is to be one.
fn listen_again<R: Read>(
    mut from: R,
    to: &Sender<Result<Heard>>,
    again: impl Fn(u64) -> Option<Result<R>>,
) {
    let mut version = 0;
    while let Some(newest) = listen(from, to).filter(|newest| *newest > version) {
        version = newest;
        from = match again(version) {
            Some(Ok(more)) => more,
            Some(Err(error)) => {
                // Nobody may want it any more.
                let _ = to.send(Err(error));
                return;
            }
            None => return,
        };
    }
}

/// One line per event; returns the newest version at the end, none where nobody wants events any more.
fn listen(from: impl Read, to: &Sender<Result<Heard>>) -> Option<u64> {
    let mut newest = 0;
    for line in BufReader::new(from).lines() {
        let at = Instant::now();
        let heard = line.map_err(Into::into).and_then(|line| read(&line, at));
        newest = newest.max(heard.as_ref().map_or(0, Heard::version));
        to.send(heard).ok()?;
    }
    Some(newest)
}

fn read(line: &str, at: Instant) -> Result<Heard> {
    let mut event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let kind = event["type"].as_str().unwrap_or_default().to_owned();
    ensure!(["ADDED", "MODIFIED", "DELETED"].contains(&kind.as_str()), "the watch says {line}");
    Ok(Heard { at, kind, object: event["object"].take() })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Cursor;

    use super::*;

    #[test]
    fn events_are_read_and_errors_are_errors() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#;
        let heard = read(line, Instant::now()).unwrap();
        assert_eq!((heard.kind.as_str(), heard.name()), ("ADDED", "a"));
        let line = r#"{"type":"ERROR","object":{"code":410}}"#;
        assert!(read(line, Instant::now()).unwrap_err().to_string().contains("410"));
    }

    #[test]
    fn a_watch_that_the_server_ends_goes_on_behind_its_newest_event() {
        let event = |name: &str, version: u64| {
            let metadata =
                serde_json::json!({"name": name, "resourceVersion": version.to_string()});
            format!("{}\n", serde_json::json!({"type": "ADDED", "object": {"metadata": metadata}}))
        };
        let first = event("a", 9) + &event("b", 7);
        let (sender, heard) = mpsc::channel();
        let asked = RefCell::new(Vec::new());
        listen_again(Cursor::new(first), &sender, |version| {
            asked.borrow_mut().push(version);
            let more = if version == 9 { event("c", 10) } else { String::new() };
            Some(Ok(Cursor::new(more)))
        });
        drop(sender);
        let names: Vec<String> =
            heard.iter().map(|heard| heard.unwrap().name().to_owned()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(asked.into_inner(), [9, 10], "one that tells nothing is the last");
    }
}
