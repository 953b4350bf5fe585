//! What the agent does to the node object of its own: it takes its taint off, says that pods have a network,
//! and tells what keeps them from it. Nothing else.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::json;
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
    is_tainted: bool,
    is_available: bool,
}

impl OwnObject {
    pub(super) fn of(seen: Option<&Seen>) -> Option<Self> {
        let seen = seen.filter(|seen| seen.standing != Standing::Deleted)?;
        let Seen { uid, is_tainted, is_available, .. } = seen;
        Some(Self { uid: uid.clone(), is_tainted: *is_tainted, is_available: *is_available })
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
        if object.is_tainted {
            let taint = json!({ "spec": { "taints": [{ "$patch": "delete", "key": TAINT }] } });
            self.patch(&taint, false).await.map_err(|why| {
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
            self.patch(&condition, true).await.map_err(|why| {
                format!("cannot set the condition {CONDITION} of this node to False ({why})")
            })?;
            tracing::info!("set the condition {CONDITION} of this node to False");
        }
        Ok(())
    }

    /// Lists of taints and conditions are merged by key and type: what others put there stays.
    async fn patch(&self, patch: &serde_json::Value, is_status: bool) -> Result<(), String> {
        let nodes: Api<NodeObject> = Api::all(self.server.client.clone());
        let (patch, params) = (Patch::Strategic(patch), PatchParams::default());
        let request = async {
            if is_status {
                nodes.patch_status(&self.name, &params, &patch).await
            } else {
                nodes.patch(&self.name, &params, &patch).await
            }
        };
        match timeout(TIME_MAX, request).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(format!("no answer within {} s", TIME_MAX.as_secs())),
        }
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
