//! Gives leases of delegated plugins back where no runtime does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;

use cni_shim::delegation::{DELEGATE_TIME_MAX, Delegation};
use cni_shim::names::Attachment;
use cni_shim::protocol::{Collected, Failure, Reply};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::Engine;
use crate::failure;
use crate::kernel::Kernel;

/// Of one plugin at the same time.
const CALLS_MAX: usize = 4;

type End = (String, Result<(), Failure>);

/// Calls of delegated plugins that run, or wait for their turn.
///
/// They hold no lock of the plugin, which others share: one that hangs would hold up strangers. Instead the
/// engine refuses an ADD of an attachment whose lease is on its way back.
#[derive(Debug, Default)]
pub(super) struct Leases {
    calls: JoinSet<Freed>,
    places: BTreeMap<PathBuf, Arc<Semaphore>>,
    running: BTreeSet<String>,
    watchers: Vec<mpsc::UnboundedSender<End>>,
}

/// The end of a call.
#[derive(Debug)]
pub(super) struct Freed {
    pub(super) name: String,
    result: Result<(), Failure>,
}

impl Leases {
    fn free(&mut self, name: &str, attachment: Attachment, delegation: Delegation) {
        if !self.running.insert(name.to_owned()) {
            return;
        }
        let new = || Arc::new(Semaphore::new(CALLS_MAX));
        let places = self.places.entry(delegation.plugin.clone()).or_insert_with(new);
        let (places, name) = (Arc::clone(places), name.to_owned());
        self.calls.spawn(async move {
            let _place = places.acquire_owned().await;
            let result = del(&delegation, &attachment).await;
            Freed { name, result }
        });
    }

    /// The next call that ends; none while none runs.
    pub(super) async fn next(&mut self) -> Option<Freed> {
        self.calls.join_next().await?.ok()
    }

    /// Refuses an attachment whose earlier lease is on its way back: the new one would go with it.
    pub(super) fn check_returned(&self, name: &str) -> Result<(), Failure> {
        if self.running.contains(name) {
            let details = "the IPAM plugin has been asked to free it and has not answered yet";
            return Err(failure::try_again("an earlier lease is being given back", details));
        }
        Ok(())
    }

    /// Tells of the ends of these calls.
    pub(super) fn watch(&mut self, names: BTreeSet<String>, deadline: Instant) -> Returns {
        let (watcher, ends) = mpsc::unbounded_channel();
        self.watchers.push(watcher);
        Returns { names, ends, deadline }
    }
}

/// Leases that GC has begun to give back.
#[derive(Debug)]
pub(super) struct Returns {
    names: BTreeSet<String>,
    ends: mpsc::UnboundedReceiver<End>,
    deadline: Instant,
}

impl Returns {
    /// Replies when all have been given back, or the time is up; meanwhile the engine serves others.
    pub(super) fn reply(self, collected: Collected, reply: oneshot::Sender<Reply>) {
        tokio::spawn(async move {
            // A client that went away finds what it asked for by asking again.
            let _ = reply.send(Reply::Collected(self.end(collected).await));
        });
    }

    /// Adds to the result of GC what became of the leases.
    pub(super) async fn end(mut self, mut collected: Collected) -> Collected {
        while !self.names.is_empty() {
            match timeout_at(self.deadline, self.ends.recv()).await {
                Ok(Some((name, result))) if self.names.remove(&name) => match result {
                    Ok(()) => collected.removed = collected.removed.saturating_add(1),
                    Err(failure) => collected.failures.push(failure),
                },
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let names: Vec<String> = self.names.into_iter().collect();
                    let message = format!("the leases of {} are left", names.join(", "));
                    let details = "the IPAM plugin has not freed them yet";
                    collected.failures.push(failure::try_again(&message, details));
                    break;
                }
            }
        }
        collected
    }
}

impl<K: Kernel> Engine<K> {
    /// Begins to give the lease of an attachment back; false if it has none.
    pub(super) fn free_lease(&mut self, name: &str) -> bool {
        let Some(attached) = self.model.attachments.get(name) else { return false };
        let Some(delegation) = &attached.delegation else { return false };
        self.leases.free(name, attached.attachment.clone(), (**delegation).clone());
        true
    }

    /// Forgets the attachment whose lease is given back; keeps it for another try if that failed.
    pub(super) async fn lease_freed(&mut self, freed: Freed) {
        let Freed { name, result } = freed;
        self.leases.running.remove(&name);
        match &result {
            Ok(()) => self.free(&name).await,
            Err(failure) => {
                let problem = format!(
                    "{}: its pod is gone, and its lease cannot be given back: {failure}",
                    self.store.path(&name).display()
                );
                if self.file_problems.get(&name) != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.file_problems.insert(name.clone(), problem);
            }
        }
        self.leases.watchers.retain(|watcher| watcher.send((name.clone(), result.clone())).is_ok());
    }
}

async fn del(delegation: &Delegation, attachment: &Attachment) -> Result<(), Failure> {
    match timeout(DELEGATE_TIME_MAX, run(delegation, attachment)).await {
        Ok(Ok(output)) => delegation.answer(output).map(drop),
        Ok(Err(error)) => Err(delegation.failed(&error.to_string())),
        Err(_) => Err(delegation.late("DEL")),
    }
}

async fn run(delegation: &Delegation, attachment: &Attachment) -> std::io::Result<Output> {
    let mut child = Command::new(&delegation.plugin)
        .envs(delegation.del_environment(attachment))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that fails may end without reading.
        let _ = stdin.write_all(delegation.config.to_string().as_bytes()).await;
    }
    child.wait_with_output().await
}
