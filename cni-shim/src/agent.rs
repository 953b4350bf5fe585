//! The agent, as the plugin calls it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

use crate::error::{Context as _, DECODE, IO, PROTOCOL, TRY_AGAIN, failure};
use crate::names::{PLUGIN_FILE, PluginFile, beside};
use crate::protocol::{self, Call, Failure, MessageError, PROTOCOL_VERSION, Reply, Request};

/// Longest wait for an agent that is being restarted.
pub(crate) const AGENT_WAIT_MAX: Duration = Duration::from_secs(20);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
const RETRY_STEP: Duration = Duration::from_millis(50);

/// Where the pins are. The file stays when the agent stops.
pub(crate) fn plugin_file(socket: &Path) -> Result<PluginFile, Failure> {
    let path = beside(socket, PLUGIN_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failure(
                TRY_AGAIN,
                format!("{} is missing", path.display()),
                "the agent writes it when its programs are loaded: is podwire-agent running on this \
                 node, and is \"socket\" in the network configuration its socket?",
            ));
        }
        Err(error) => return Err(error).context(IO, || format!("read {}", path.display())),
    };
    let file: PluginFile =
        serde_json::from_slice(&text).context(DECODE, || format!("read {}", path.display()))?;
    if file.protocol != PROTOCOL_VERSION {
        return Err(failure(
            PROTOCOL,
            format!("the agent speaks protocol {}", file.protocol),
            format!("this plugin speaks {PROTOCOL_VERSION}: install both from the same release"),
        ));
    }
    Ok(file)
}

/// Asks the agent; waits for it as long as `patience` says.
///
/// One that goes away in the middle is asked again when it is back: each call may come twice.
pub(crate) fn ask(socket: &Path, call: Call, patience: Duration) -> Result<Reply, Failure> {
    Question::send(socket, call).answer(patience)
}

/// Asks the agent once. An error is that of the way to it; what it refuses is a reply.
pub(crate) fn ask_once(socket: &Path, call: Call) -> Result<Reply, Failure> {
    Question::send(socket, call).reply(Duration::ZERO)
}

/// A question that the agent works on while its asker does something else.
#[must_use = "the agent does what it is asked, whether or not somebody hears its answer"]
pub(crate) struct Question<'a> {
    socket: &'a Path,
    request: Request,
    sent: Result<UnixStream, MessageError>,
}

impl<'a> Question<'a> {
    /// Sends it. That the agent is away shows when its answer is waited for.
    pub(crate) fn send(socket: &'a Path, call: Call) -> Self {
        let request = Request { version: PROTOCOL_VERSION, call };
        let sent = send(socket, &request);
        Self { socket, request, sent }
    }

    /// As [`ask`].
    pub(crate) fn answer(self, patience: Duration) -> Result<Reply, Failure> {
        let reply = self.reply(patience)?;
        if let Reply::Failed(failure) = reply { Err(failure) } else { Ok(reply) }
    }

    fn reply(self, patience: Duration) -> Result<Reply, Failure> {
        let Self { socket, request, mut sent } = self;
        let deadline = Instant::now() + patience;
        loop {
            match sent.and_then(|mut stream| protocol::read(&mut stream)) {
                Ok(reply) => return Ok(reply),
                Err(MessageError::Io(error))
                    if is_time_over(&error) || Instant::now() >= deadline =>
                {
                    return Err(no_answer(socket, &error));
                }
                Err(MessageError::Io(_)) => thread::sleep(RETRY_STEP),
                Err(error @ (MessageError::TooLong(_) | MessageError::Json(_))) => {
                    return Err(failure(
                        PROTOCOL,
                        format!("what answers on {} is no agent of this release", socket.display()),
                        format!("{error}: install plugin and agent from the same release"),
                    ));
                }
            }
            sent = send(socket, &request);
        }
    }
}

/// The error for a reply to another call.
pub(crate) fn unfit(reply: &Reply) -> Failure {
    failure(PROTOCOL, "the agent's answer fits another question", format!("{reply:?}"))
}

/// For how long the agent has given no sign of life; it does every few seconds.
pub(crate) fn away(socket: &Path) -> Duration {
    let modified = beside(socket, PLUGIN_FILE).metadata().and_then(|file| file.modified());
    modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

fn send(socket: &Path, request: &Request) -> Result<UnixStream, MessageError> {
    let mut stream = connect(socket, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    protocol::write(&mut stream, request)?;
    Ok(stream)
}

/// An agent that hangs takes no more calls once its queue is full: the limit for sending is one for connecting, too
/// (`unix_stream_connect`).
fn connect(socket: &Path, limit: Duration) -> io::Result<UnixStream> {
    let stream =
        socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(stream);
    stream.set_write_timeout(Some(limit))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(socket)?)?;
    Ok(stream)
}

fn is_time_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn no_answer(socket: &Path, error: &io::Error) -> Failure {
    let why = if is_time_over(error) {
        format!("it was silent for {} s", ANSWER_MAX.as_secs())
    } else {
        error.to_string()
    };
    failure(
        TRY_AGAIN,
        format!("no agent answers on {} ({why})", socket.display()),
        "is podwire-agent running on this node? `podwire-agent status` tells",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::names::Attachment;
    use crate::protocol::DelCall;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn del() -> Call {
        let attachment = Attachment { container_id: "c".into(), ifname: "eth0".into() };
        Call::Del(DelCall { attachment, lease_freed: false })
    }

    /// Serves one connection after the other, each with the next piece of work.
    fn served(works: Vec<fn(&mut UnixStream)>, patience: Duration) -> Result<Reply, Failure> {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let server = thread::spawn(move || {
            for work in works {
                work(&mut listener.accept().expect("a client").0);
            }
        });
        let result = ask(&socket, del(), patience);
        if result.is_ok() {
            server.join().expect("served");
        }
        result
    }

    fn answer(stream: &mut UnixStream) {
        protocol::read::<Request>(stream).expect("a request");
        protocol::write(stream, &Reply::Deleted).expect("written");
    }

    #[test]
    fn an_agent_that_goes_away_is_asked_again() {
        let hang_up = |_: &mut UnixStream| {};
        let hang_up_later = |stream: &mut UnixStream| {
            protocol::read::<Request>(stream).expect("a request");
        };
        let stop_in_the_middle = |stream: &mut UnixStream| {
            use std::io::Write as _;
            protocol::read::<Request>(stream).expect("a request");
            stream.write_all(&[0, 0, 0, 9, b'"']).expect("written");
        };
        let works: Vec<fn(&mut UnixStream)> =
            vec![hang_up, hang_up_later, stop_in_the_middle, answer];
        assert_eq!(served(works, PATIENCE), Ok(Reply::Deleted));
    }

    #[test]
    fn without_patience_it_is_asked_once() {
        let hang_up = |stream: &mut UnixStream| {
            protocol::read::<Request>(stream).expect("a request");
        };
        let error = served(vec![hang_up], Duration::ZERO).expect_err("no answer");
        assert_eq!(error.code, TRY_AGAIN, "{error}");
        assert!(error.message.contains("closed before"), "{error}");
        assert!(error.details.contains("is podwire-agent running"), "{error}");
    }

    #[test]
    fn one_that_takes_no_calls_is_not_waited_for_without_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        let new = || {
            let (unix, stream) = (AddressFamily::Unix, SockType::Stream);
            socket::socket(unix, stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
        };
        let hanging = new();
        socket::bind(hanging.as_raw_fd(), &UnixAddr::new(&path).expect("a path")).expect("bound");
        socket::listen(&hanging, socket::Backlog::new(0).expect("none")).expect("listens");
        let mut queued = Vec::new();
        let error = loop {
            match connect(&path, Duration::from_millis(20)) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 10, "the queue has no end");
        };
        assert!(is_time_over(&error), "{error}");
    }

    #[test]
    fn refusals_and_other_languages_are_final() {
        let refuse = |stream: &mut UnixStream| {
            let reply = Reply::Failed(failure(TRY_AGAIN, "not yet", "later"));
            protocol::write(stream, &reply).expect("written");
            // Unread bytes at the end would reset the connection.
            protocol::read::<Request>(stream).expect("a request");
        };
        let error = served(vec![refuse], PATIENCE).expect_err("refused");
        assert_eq!((error.code, error.message.as_str()), (TRY_AGAIN, "not yet"));
        let babble = |stream: &mut UnixStream| {
            protocol::write(stream, &"hello").expect("written");
            protocol::read::<Request>(stream).expect("a request");
        };
        assert_eq!(served(vec![babble], PATIENCE).expect_err("no reply").code, PROTOCOL);
    }
}
