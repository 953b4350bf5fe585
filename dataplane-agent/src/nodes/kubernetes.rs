//! Nodes from the Kubernetes API: watched, judged, and kept on disk for the time without it.

mod client;
mod kept;
mod object;
mod own;
mod resolve;
mod seen;
mod watching;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kube::runtime::watcher::Event;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::client::ApiServer;
pub use self::client::ClientError;
use self::kept::Kept;
use self::object::NodeObject;
use self::own::{Caretaker, OwnObject};
use self::resolve::{Doubt, resolve};
use self::seen::Objects;
use self::watching::{Heard, Watch};
use super::source::{Known, News, Origin, Readiness};
use crate::model::Network;

/// Doubts that are told; of the others the number.
const DOUBTS_MAX: usize = 20;
/// Nothing is due.
const LONG: Duration = Duration::from_secs(3_600);

/// What the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// How to get there; none: as the pod that this is.
    pub kubeconfig: Option<PathBuf>,
    /// Where the nodes are kept.
    pub state_dir: PathBuf,
}

/// Follows the nodes of a cluster.
pub struct Follower {
    server: ApiServer,
    own_name: String,
    network: Network,
    objects: Objects,
    kept: Kept,
    /// When what was found on disk was right.
    as_of: Option<SystemTime>,
    fault: Option<String>,
    state: State,
    told: State,
    /// The engine does not know all of it.
    is_changed: bool,
    doubts: Vec<Doubt>,
    waiting: Option<String>,
    /// The node object of this node, for who looks after it.
    own: watch::Sender<Option<OwnObject>>,
}

/// How new it is what is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing has been heard yet.
    #[default]
    Asking,
    /// As new as can be.
    Heard,
    /// Not heard for this reason.
    Silent(String),
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("server", &self.server.url).finish_non_exhaustive()
    }
}

impl Follower {
    /// Takes what an earlier agent has kept. Does not ask the API server yet.
    ///
    /// # Errors
    /// When the way to it is not known.
    pub async fn open(
        chosen: &Kubernetes,
        own_name: &str,
        network: &Network,
    ) -> Result<Self, ClientError> {
        let server = ApiServer::new(chosen.kubeconfig.as_deref()).await?;
        Ok(Self::with(server, &chosen.state_dir, own_name, network))
    }

    fn with(server: ApiServer, state_dir: &Path, own_name: &str, network: &Network) -> Self {
        let kept = Kept::new(state_dir);
        let found = kept.load();
        if let Some(fault) = &found.fault {
            tracing::error!("{fault}: the nodes are known when the API server has answered");
        }
        Self {
            server,
            own_name: own_name.to_owned(),
            network: network.clone(),
            objects: Objects::new(own_name, found.nodes),
            kept,
            as_of: found.as_of,
            fault: found.fault,
            state: State::default(),
            told: State::default(),
            is_changed: false,
            doubts: Vec::new(),
            waiting: None,
            own: watch::Sender::default(),
        }
    }

    /// What is known without asking.
    pub fn first(&self) -> (Known, Origin) {
        let is_known = !self.objects.all().is_empty();
        let name = self.name();
        let mut known = self.resolve().0;
        if !is_known {
            known.waiting = Some(format!("{name} has not told the nodes yet"));
        }
        known.doubts.extend(self.fault.clone());
        let silent_since = is_known.then(|| self.as_of.unwrap_or(SystemTime::UNIX_EPOCH));
        (known, Origin { name, silent_since })
    }

    fn name(&self) -> String {
        format!("the Kubernetes API at {}", self.server.url)
    }

    /// Tells what changes, until the receiver is gone, and looks after the node object of this node.
    pub async fn follow(self, to: mpsc::Sender<News>, readiness: watch::Receiver<Readiness>) {
        let caretaker = Caretaker {
            server: self.server.clone(),
            name: self.own_name.clone(),
            object: self.own.subscribe(),
            readiness,
            told: Readiness::default(),
        };
        tokio::select! {
            () = self.watch(to) => {}
            () = caretaker.work() => {}
        }
    }

    async fn watch(mut self, to: mpsc::Sender<News>) {
        let mut watch = Watch::new(self.server.clone());
        loop {
            if self.state == State::Heard {
                self.kept.keep(self.objects.all());
            }
            let keep_at = self.keep_at();
            tokio::select! {
                heard = watch.next() => self.hear(heard, &mut watch),
                place = to.reserve(), if self.has_news() => {
                    let Ok(place) = place else { return };
                    place.send(self.news());
                }
                () = sleep_until(keep_at) => {}
                () = to.closed() => return,
            }
        }
    }

    /// While nothing is heard, what is on disk does not get newer.
    fn keep_at(&self) -> Instant {
        match self.state {
            State::Heard => self.kept.due().unwrap_or_else(|| self.kept.touch_at()),
            State::Asking | State::Silent(_) => Instant::now() + LONG,
        }
    }

    fn has_news(&self) -> bool {
        self.state != self.told || (self.is_changed && self.state == State::Heard)
    }

    fn hear(&mut self, heard: Heard, watch: &mut Watch) {
        match heard {
            Heard::Event(event) => {
                if let Err(seen::NotBelieved) = self.take(*event) {
                    let why = "it lists no node at all, not even this one".to_owned();
                    watch.start_again(why.clone());
                    self.state = State::Silent(why);
                }
            }
            Heard::Answer => self.state = State::Heard,
            Heard::Failed(why) => self.state = State::Silent(why),
        }
    }

    fn take(&mut self, event: Event<NodeObject>) -> Result<(), seen::NotBelieved> {
        let is_new = match event {
            Event::Init => {
                self.objects.begin();
                return Ok(());
            }
            Event::InitApply(object) => {
                let (name, seen) = object.into_seen();
                self.objects.list(name, seen);
                return Ok(());
            }
            // The first list is news also if it says what was known.
            Event::InitDone => self.objects.finish()? || self.state != State::Heard,
            Event::Apply(object) => {
                let (name, seen) = object.into_seen();
                self.objects.apply(name, seen)
            }
            Event::Delete(object) => self.objects.delete(&object.into_seen().0),
        };
        self.state = State::Heard;
        let own = OwnObject::of(self.objects.own());
        self.own.send_if_modified(|before| std::mem::replace(before, own.clone()) != own);
        if is_new {
            self.is_changed = true;
            self.kept.changed();
        }
        Ok(())
    }

    fn news(&mut self) -> News {
        self.told = self.state.clone();
        if let State::Silent(why) = &self.state {
            let name = self.name();
            return News::Trouble(format!(
                "{name} does not tell the nodes, those known before stay in \
                use: {why}"
            ));
        }
        if std::mem::take(&mut self.is_changed) { News::Nodes(self.judge()) } else { News::Current }
    }

    /// Resolves, and logs what is new about it.
    fn judge(&mut self) -> Known {
        let (known, doubts) = self.resolve();
        for doubt in doubts.iter().filter(|doubt| !self.doubts.contains(doubt)) {
            if doubt.is_passing {
                tracing::info!("{doubt}");
            } else {
                tracing::warn!("{doubt}");
            }
        }
        self.doubts = doubts;
        if known.waiting != self.waiting {
            match &known.waiting {
                Some(why) => tracing::warn!("this node can have no new pods: {why}"),
                None => tracing::info!("this node can have pods"),
            }
            self.waiting.clone_from(&known.waiting);
        }
        known
    }

    fn resolve(&self) -> (Known, Vec<Doubt>) {
        let mut resolved = resolve(self.objects.all(), &self.own_name, &self.network);
        // Those that pass by themselves must not hide others.
        resolved.doubts.sort_by_key(|doubt| doubt.is_passing);
        let more = resolved.doubts.len().saturating_sub(DOUBTS_MAX);
        // What is not told now is told when there is room for it.
        resolved.doubts.truncate(DOUBTS_MAX);
        let mut doubts: Vec<String> = resolved.doubts.iter().map(ToString::to_string).collect();
        if more > 0 {
            doubts.push(format!("and {more} more of this kind"));
        }
        let known = Known { nodes: resolved.nodes, doubts, waiting: resolved.waiting };
        (known, resolved.doubts)
    }
}

#[cfg(test)]
mod tests;
