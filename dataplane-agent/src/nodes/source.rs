//! Where nodes come from: one shape for all sources.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use super::kubernetes::{self, Kubernetes};
use super::{NodeFile, NodeFileError, follow};
use crate::model::{Network, Node};

/// What the operator chose as source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A TOML file.
    File(PathBuf),
    /// The Kubernetes API.
    Kubernetes(Kubernetes),
}

/// What a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All that it knows. It is as new as can be.
    Nodes(Known),
    /// What it told last is as new as can be again.
    Current,
    /// It cannot tell, for this reason: what it told last stays in use.
    Trouble(String),
}

impl From<Result<Vec<Arc<Node>>, NodeFileError>> for News {
    fn from(read: Result<Vec<Arc<Node>>, NodeFileError>) -> Self {
        match read {
            Ok(nodes) => Self::Nodes(Known { nodes, ..Known::default() }),
            Err(error) => Self::Trouble(format!("{error}; the last good content stays in use")),
        }
    }
}

/// The nodes of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Nodes that can be used.
    pub nodes: Vec<Arc<Node>>,
    /// What is wrong with others.
    pub doubts: Vec<String>,
    /// Why this node can have no new pods yet.
    pub waiting: Option<String>,
}

/// How old it is what is known of a source that has been silent since then.
pub fn age(silent_since: Option<SystemTime>) -> Duration {
    // A clock that was set back makes it new.
    silent_since.and_then(|since| since.elapsed().ok()).unwrap_or_default()
}

/// Whether an ADD would be served, as far as the node is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing is set up yet.
    #[default]
    Starting,
    /// It would.
    Ready,
    /// It would not, for this reason.
    Not(String),
}

/// Where the engine's nodes come from, and how new they are when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// For people: `the node file /etc/podwire/nodes.toml`.
    pub name: String,
    /// Since when the source has not been heard, where the nodes are those of an earlier agent.
    pub silent_since: Option<SystemTime>,
}

/// A source whose first answer is there.
#[derive(Debug)]
pub struct Opened {
    /// What the engine starts with.
    pub known: Known,
    /// How new that is.
    pub origin: Origin,
    follower: Follower,
}

#[derive(Debug)]
enum Follower {
    File(Box<NodeFile>),
    Kubernetes(Box<kubernetes::Follower>),
}

impl Opened {
    /// Tells each change, until the receiver is gone. A source that wants to know whether pods can have a
    /// network here is told so.
    pub async fn follow(self, to: mpsc::Sender<News>, readiness: watch::Receiver<Readiness>) {
        match self.follower {
            Follower::File(file) => follow::follow(*file, to).await,
            Follower::Kubernetes(follower) => follower.follow(to, readiness).await,
        }
    }
}

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The node file is bad.
    #[error(transparent)]
    File(#[from] NodeFileError),
    /// The Kubernetes API cannot be asked at all.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::ClientError),
}

impl Source {
    /// Reads the node file, or what an earlier agent knew from the Kubernetes API, without waiting for it.
    ///
    /// # Errors
    /// When the node file is bad, or the way to the API is not known.
    pub async fn open(self, own_name: &str, network: &Network) -> Result<Opened, SourceError> {
        match self {
            Self::File(file) => {
                let name = format!("the node file {}", file.display());
                let mut file = NodeFile::new(file, own_name.to_owned(), network.clone());
                let nodes = file.news().transpose()?.unwrap_or_default();
                Ok(Opened {
                    known: Known { nodes, ..Known::default() },
                    origin: Origin { name, ..Origin::default() },
                    follower: Follower::File(Box::new(file)),
                })
            }
            Self::Kubernetes(chosen) => {
                let follower = kubernetes::Follower::open(&chosen, own_name, network).await?;
                let (known, origin) = follower.first();
                Ok(Opened { known, origin, follower: Follower::Kubernetes(Box::new(follower)) })
            }
        }
    }
}
