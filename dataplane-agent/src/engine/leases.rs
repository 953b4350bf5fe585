//! Gives leases of delegated plugins back where no runtime does.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cni_shim::delegation::Delegation;
use cni_shim::names::Attachment;
use cni_shim::protocol::Failure;
use nix::fcntl::Flock;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Engine;
use crate::kernel::Kernel;

/// For one call of a delegated plugin.
const DEL_TIME_MAX: Duration = Duration::from_secs(20);
/// At the same time.
const CALLS_MAX: usize = 4;

/// Plugins' locks, by their number; each is free again when the last who needs it has ended.
pub(super) type Locks = BTreeMap<Option<u8>, Arc<Flock<File>>>;

/// Calls of delegated plugins that run.
#[derive(Debug)]
pub(super) struct Leases {
    calls: JoinSet<Freed>,
    places: Arc<Semaphore>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { calls: JoinSet::new(), places: Arc::new(Semaphore::new(CALLS_MAX)) }
    }
}

/// The end of a call, with the lock under which it ran.
#[derive(Debug)]
pub(super) struct Freed {
    name: String,
    result: Result<(), Failure>,
    _lock: Arc<Flock<File>>,
}

impl Leases {
    fn free(
        &mut self,
        name: String,
        attachment: Attachment,
        delegation: Delegation,
        lock: Arc<Flock<File>>,
    ) {
        let places = Arc::clone(&self.places);
        self.calls.spawn(async move {
            let _place = places.acquire_owned().await;
            let result = del(&delegation, &attachment).await;
            Freed { name, result, _lock: lock }
        });
    }

    /// The next call that ends; none while none runs.
    pub(super) async fn next(&mut self) -> Option<Freed> {
        self.calls.join_next().await?.ok()
    }
}

impl<K: Kernel> Engine<K> {
    /// Begins to give the lease of an attachment back; false if it has none.
    pub(super) fn free_lease(&mut self, name: &str, lock: Option<&Arc<Flock<File>>>) -> bool {
        let Some(attached) = self.model.attachments.get(name) else { return false };
        let (Some(delegation), Some(lock)) = (&attached.delegation, lock) else { return false };
        let (attachment, delegation) = (attached.attachment.clone(), (**delegation).clone());
        self.leases.free(name.to_owned(), attachment, delegation, Arc::clone(lock));
        true
    }

    /// Forgets the attachment whose lease is given back; keeps it for another try if that failed.
    pub(super) async fn lease_freed(&mut self, freed: Freed) {
        let name = &freed.name;
        match &freed.result {
            Ok(()) => self.free(name).await,
            Err(failure) => {
                let problem = format!(
                    "{}: its pod is gone, and its lease cannot be given back: {failure}",
                    self.store.path(name).display()
                );
                if self.file_problems.get(name) != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.file_problems.insert(name.clone(), problem);
            }
        }
    }
}

async fn del(delegation: &Delegation, attachment: &Attachment) -> Result<(), Failure> {
    match timeout(DEL_TIME_MAX, run(delegation, attachment)).await {
        Ok(Ok(output)) => delegation.answer(output).map(drop),
        Ok(Err(error)) => Err(delegation.failed(&error.to_string())),
        Err(_) => {
            Err(delegation.failed(&format!("DEL took more than {} s", DEL_TIME_MAX.as_secs())))
        }
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
