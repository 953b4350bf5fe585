//! What the agent does to the node object of its own: it takes its taint off, says that pods have a network,
//! and tells what keeps them from it. Nothing else.

use std::time::Duration;

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation, TestOperation};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::{ApiServer, explain};
use super::object::{CONDITION, NodeObject, TAINT};
use super::seen::{Seen, Standing};
use crate::nodes::source::Readiness;

/// For one request.
const TIME_MAX: Duration = Duration::from_secs(20);
/// After one that failed.
const PAUSE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How the API server calls whom an event is from.
const REPORTER: &str = "podwire-agent";

/// What of the own node object matters here; none before it is known, and after it was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnObject {
    uid: String,
    taint_at: Option<usize>,
    is_available: bool,
}

impl OwnObject {
    pub(super) fn of(seen: Option<&Seen>) -> Option<Self> {
        let seen = seen.filter(|seen| seen.standing != Standing::Deleted)?;
        let Seen { uid, taint_at, is_available, .. } = seen;
        Some(Self { uid: uid.clone(), taint_at: *taint_at, is_available: *is_available })
    }
}

/// Looks after the node object.
pub(super) struct Caretaker {
    pub(super) server: ApiServer,
    pub(super) name: String,
    pub(super) object: watch::Receiver<Option<OwnObject>>,
    pub(super) readiness: watch::Receiver<Readiness>,
    /// What the last event said.
    pub(super) told: Readiness,
}

impl Caretaker {
    /// Works until it is dropped.
    pub(super) async fn work(mut self) {
        let mut problem = None;
        loop {
            let done = self.care().await;
            if let Err(why) = &done
                && problem.as_ref() != Some(why)
            {
                tracing::warn!("{why}: tried again");
            }
            problem = done.err();
            let pause = if problem.is_some() { PAUSE } else { super::LONG };
            tokio::select! {
                Ok(()) = self.object.changed() => {}
                Ok(()) = self.readiness.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn care(&mut self) -> Result<(), String> {
        let Some(object) = self.object.borrow_and_update().clone() else { return Ok(()) };
        let readiness = self.readiness.borrow_and_update().clone();
        self.tell(&object, &readiness).await;
        if readiness != Readiness::Ready {
            return Ok(());
        }
        if let Some(at) = object.taint_at {
            self.patch(untaint(at)).await.map_err(|why| {
                format!(
                    "cannot take the taint {TAINT} off this node ({why}): pods do not come here"
                )
            })?;
            tracing::info!("took the taint {TAINT} off this node");
        }
        if !object.is_available {
            let now = Time(Timestamp::now());
            let condition = json!({ "status": { "conditions": [{
                "type": CONDITION, "status": "False", "reason": "PodwireIsUp",
                "message": "Podwire has set up the network of pods on this node",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }] } });
            self.patch_status(&condition).await.map_err(|why| {
                format!("cannot set the condition {CONDITION} of this node to False ({why})")
            })?;
            tracing::info!("set the condition {CONDITION} of this node to False");
        }
        Ok(())
    }

    async fn patch(&self, patch: json_patch::Patch) -> Result<(), String> {
        let patch: Patch<()> = Patch::Json(patch);
        answered(self.nodes().patch(&self.name, &PatchParams::default(), &patch)).await
    }

    /// Conditions are merged by type: those of others stay.
    async fn patch_status(&self, patch: &Value) -> Result<(), String> {
        let patch = Patch::Strategic(patch);
        answered(self.nodes().patch_status(&self.name, &PatchParams::default(), &patch)).await
    }

    fn nodes(&self) -> Api<NodeObject> {
        Api::all(self.server.client.clone())
    }

    /// An event is a courtesy: one that is lost stays lost.
    async fn tell(&mut self, object: &OwnObject, readiness: &Readiness) {
        let (type_, reason, note) = match readiness {
            Readiness::Starting => return,
            told if *told == self.told => return,
            Readiness::Ready => {
                (EventType::Normal, "PodNetworkReady", "pods can have a network here")
            }
            Readiness::Not(why) => (EventType::Warning, "PodNetworkNotReady", why.as_str()),
        };
        self.told = readiness.clone();
        // The API server takes 1,024 bytes.
        let note = Some(note.chars().take(250).collect());
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note,
            action: "SetUpPodNetwork".to_owned(),
            secondary: None,
        };
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            api_version: Some("v1".to_owned()),
            name: Some(self.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        let instance = Some(self.name.clone());
        let reporter = Reporter { controller: REPORTER.to_owned(), instance };
        // One that remembers would change earlier events, which takes another right.
        let recorder = Recorder::new(self.server.client.clone(), reporter);
        match timeout(TIME_MAX, recorder.publish(&event, &node)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("an event is lost: {}", explain(&error)),
            Err(_) => tracing::debug!("an event is lost: no answer"),
        }
    }
}

/// Takes the taint at a place off, if it is ours: the list may be another by now (RFC 6902). A strategic merge cannot do it,
/// as taints have no key to be merged by.
fn untaint(at: usize) -> json_patch::Patch {
    let taint = PointerBuf::from_tokens(["spec", "taints", &at.to_string()]);
    let mut key = taint.clone();
    key.push_back("key");
    json_patch::Patch(vec![
        PatchOperation::Test(TestOperation { path: key, value: TAINT.into() }),
        PatchOperation::Remove(RemoveOperation { path: taint }),
    ])
}

async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<(), String> {
    match timeout(TIME_MAX, request).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(format!("no answer within {} s", TIME_MAX.as_secs())),
    }
}
