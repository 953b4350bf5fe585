//! The watch of all nodes: list, changes, and coming back after whatever ends it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::Api;
use kube::runtime::watcher::{self, Config, DefaultBackoff, Event, watcher};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::{ApiServer, explain};
use super::object::NodeObject;

/// The server ends a watch after this time, and it is taken up again where it ended: so long a connection
/// that died without a word is not noticed.
pub(super) const WATCH_SECONDS: u32 = 120;
/// For the list of all nodes.
const LIST_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// Objects of a page, where the server does not stream lists: an object with its images can have 20 KB.
const PAGE: u32 = 50;
/// Where the backoff does not say.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the watch tells.
#[derive(Debug)]
pub(super) enum Heard {
    /// What the nodes are.
    Event(Box<Event<NodeObject>>),
    /// The server has answered well; nothing need have changed.
    Answer,
    /// It cannot go on for now, and tries again by itself.
    Failed(String),
}

/// How the server tells what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    /// As the first events of the watch: little memory on both sides.
    Streamed,
    /// By pages: servers before 1.32, or with the feature off.
    Paged,
}

/// An endless watch.
pub(super) struct Watch {
    server: ApiServer,
    /// How this list is asked for.
    listing: Listing,
    /// How the next is asked for at first.
    next_listing: Listing,
    stream: BoxStream<'static, watcher::Result<Event<NodeObject>>>,
    backoff: DefaultBackoff,
    /// Not before.
    resume_at: Instant,
    /// The list has to be complete by then; none when it is.
    list_due: Option<Instant>,
}

impl Watch {
    pub(super) fn new(server: ApiServer) -> Self {
        let listing = Listing::Streamed;
        Self {
            stream: stream(&server, listing),
            server,
            listing,
            next_listing: listing,
            backoff: DefaultBackoff::default(),
            resume_at: Instant::now(),
            list_due: Some(Instant::now() + LIST_TIME_MAX),
        }
    }

    /// The next that there is to tell. Can be dropped at any time.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            sleep_until(self.resume_at).await;
            let far = Instant::now() + LIST_TIME_MAX * 1_000;
            let limit = self.list_due.unwrap_or(far);
            tokio::select! {
                // In this order: an answer that comes with events says no more than they do.
                biased;
                item = timeout_at(limit, self.stream.next()) => return match item {
                    Ok(Some(Ok(event))) => self.event(event),
                    Ok(Some(Err(error))) => match cause(error) {
                        // Nothing is wrong with such a server: no pause.
                        Ok(cause) if self.refuses_to_stream(&cause) => {
                            self.list_by_pages(&explain(&cause));
                            continue;
                        }
                        Ok(cause) => self.failed(&cause),
                        Err(why) => self.start_again(why),
                    },
                    Ok(None) => self.start_again("the watch ended".to_owned()),
                    Err(_) => self.late(),
                },
                // Before a list has ended, nothing is known to be new.
                () = self.server.heard.notified(), if self.list_due.is_none() => return Heard::Answer,
            }
        }
    }

    fn event(&mut self, event: Event<NodeObject>) -> Heard {
        match &event {
            Event::Init => self.list_due = Some(Instant::now() + LIST_TIME_MAX),
            Event::InitDone => {
                self.list_due = None;
                self.next_listing = Listing::Streamed;
            }
            Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
        }
        Heard::Event(Box::new(event))
    }

    /// Whether the server can list nodes, but not as events.
    fn refuses_to_stream(&self, cause: &kube::Error) -> bool {
        let says_so = matches!(cause, kube::Error::Api(status) if match status.code {
            400 | 422 => true,
            // Its etcd is too old for it (before 3.4.31 and 3.5.13).
            500 => status.message.contains("RequestWatchProgress"),
            _ => false,
        });
        says_so && self.listing == Listing::Streamed && self.list_due.is_some()
    }

    /// Asks for this list again, by pages. The server may be updated before the next.
    fn list_by_pages(&mut self, why: &str) {
        tracing::info!(why, "the API server does not stream lists: nodes are listed by pages");
        self.listing = Listing::Paged;
        self.stream = stream(&self.server, self.listing);
        self.list_due = Some(Instant::now() + LIST_TIME_MAX);
    }

    fn failed(&mut self, cause: &kube::Error) -> Heard {
        // What could not be read, or is too long ago, may have been a change: only a new list makes up
        // for it. An error without code is a line that is neither an event nor an error.
        let is_unread = matches!(cause, kube::Error::SerdeError(_) | kube::Error::ReadEvents(_));
        let is_past = matches!(cause, kube::Error::Api(status) if [0, 410].contains(&status.code));
        if is_unread || is_past || self.list_due.is_some() {
            return self.start_again(explain(cause));
        }
        self.pause(explain(cause))
    }

    fn late(&mut self) -> Heard {
        let why = format!("no complete list of nodes within {} s", LIST_TIME_MAX.as_secs());
        if self.listing == Listing::Streamed {
            // It may not know what it is asked for, or be stuck: one list by pages, then it is asked again.
            tracing::info!("{why} as a stream: the next is asked for by pages");
            self.next_listing = Listing::Paged;
        }
        self.start_again(why)
    }

    /// Lists all nodes again, after a pause.
    pub(super) fn start_again(&mut self, why: String) -> Heard {
        self.listing = self.next_listing;
        self.stream = stream(&self.server, self.listing);
        self.list_due = Some(Instant::now());
        self.pause(why)
    }

    fn pause(&mut self, why: String) -> Heard {
        self.resume_at = Instant::now() + self.backoff.next().unwrap_or(PAUSE_MAX);
        if self.list_due.is_some() {
            self.list_due = Some(self.resume_at + LIST_TIME_MAX);
        }
        Heard::Failed(why)
    }
}

/// What the API server or the way to it is to blame for; otherwise what is wrong.
fn cause(error: watcher::Error) -> Result<kube::Error, String> {
    match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => Ok(cause),
        watcher::Error::WatchError(status) => Ok(kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => Err(error.to_string()),
    }
}

fn stream(
    server: &ApiServer,
    listing: Listing,
) -> BoxStream<'static, watcher::Result<Event<NodeObject>>> {
    let config = match listing {
        Listing::Streamed => Config::default().streaming_lists(),
        // Bounded memory comes first: pages come from etcd (a list from the server's cache comes whole).
        Listing::Paged => Config::default().page_size(PAGE),
    };
    watcher(Api::all(server.client.clone()), config.timeout(WATCH_SECONDS)).boxed()
}
