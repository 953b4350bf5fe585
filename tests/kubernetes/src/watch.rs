//! What the API server tells whoever watches, with the time at which it was heard.

use std::io::{BufRead as _, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::command::Process;
use serde_json::Value;

use crate::kubectl::Kubectl;

/// A watch, by `kubectl`: no part of the agents. It first tells of every object that there is.
#[derive(Debug)]
pub(crate) struct Watch {
    heard: Receiver<Result<Heard>>,
    _kubectl: Process,
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
}

impl Watch {
    /// Begins to watch a collection, `/api/v1/nodes`, with further words of the query.
    pub(crate) fn new(kubectl: &Kubectl, collection: &str, query: &str) -> Result<Self> {
        // From the server's cache: etcd before 3.4.31 cannot tell it whether that is the newest.
        let path = format!("{collection}?watch=1&resourceVersion=0&timeoutSeconds=7200{query}");
        let mut command = kubectl.service();
        command.args(["get", "--raw", &path]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("kubectl")?;
        let stdout = child.stdout.take().context("its output")?;
        let (sender, heard) = mpsc::channel();
        thread::spawn(move || listen(stdout, &sender));
        Ok(Self { heard, _kubectl: Process::new(child) })
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

/// One line per event, until there are no more or nobody wants them.
fn listen(from: impl Read, to: &Sender<Result<Heard>>) {
    for line in BufReader::new(from).lines() {
        let at = Instant::now();
        let heard = line.map_err(Into::into).and_then(|line| read(&line, at));
        if to.send(heard).is_err() {
            return;
        }
    }
}

fn read(line: &str, at: Instant) -> Result<Heard> {
    let mut event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let kind = event["type"].as_str().unwrap_or_default().to_owned();
    ensure!(["ADDED", "MODIFIED", "DELETED"].contains(&kind.as_str()), "the watch says {line}");
    Ok(Heard { at, kind, object: event["object"].take() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_errors_are_errors() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#;
        let heard = read(line, Instant::now()).unwrap();
        assert_eq!((heard.kind.as_str(), heard.name()), ("ADDED", "a"));
        let line = r#"{"type":"ERROR","object":{"code":410}}"#;
        assert!(read(line, Instant::now()).unwrap_err().to_string().contains("410"));
    }
}
