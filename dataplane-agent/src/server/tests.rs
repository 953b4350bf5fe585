//! The server with real sockets and an engine that answers by rote.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;

use cni_shim::protocol::{self, Call, DelCall};
use tempfile::TempDir;

use super::*;

const TIME_MAX: Duration = Duration::from_secs(2);

/// Serves DEL and nothing else, until dropped.
fn serve(socket: &Path) -> tokio::task::JoinHandle<()> {
    let mut server = Server::bind(socket).unwrap();
    server.time_max = TIME_MAX;
    let (engine, mut commands) = mpsc::channel::<Command>(4);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            if matches!(command.call, Call::Del(_)) {
                let _ = command.reply.send(Reply::Deleted);
            }
        }
    });
    tokio::spawn(async move { server.serve(engine).await })
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    (directory, socket)
}

fn del(version: u32) -> Request {
    let attachment =
        cni_shim::names::Attachment { container_id: "c".into(), ifname: "eth0".into() };
    Request { version, call: Call::Del(DelCall { attachment, lease_freed: false }) }
}

/// Sends bytes and reads the reply, in a thread of its own.
async fn exchange(socket: &Path, bytes: Vec<u8>) -> Result<Reply, MessageError> {
    let socket = socket.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = StdStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&bytes)?;
        protocol::read(&mut stream)
    })
    .await
    .unwrap()
}

fn code(reply: &Reply) -> u32 {
    let Reply::Failed(failure) = reply else { panic!("{reply:?}") };
    failure.code
}

#[tokio::test]
async fn answers_requests_and_refuses_others() {
    let (_directory, socket) = place();
    let task = serve(&socket);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let good = encode(&del(PROTOCOL_VERSION)).unwrap();
    assert_eq!(exchange(&socket, good).await.unwrap(), Reply::Deleted);
    let newer = serde_json::json!({ "version": 99, "call": { "dance": {} } });
    let reply = exchange(&socket, encode(&newer).unwrap()).await.unwrap();
    assert_eq!(code(&reply), cni_shim::error::PROTOCOL, "{reply:?}");
    for bad in [&b"\0\0\0\x02{}"[..], b"\0\0\0\x03abc", b"\xff\xff\xff\xff"] {
        assert_eq!(code(&exchange(&socket, bad.to_vec()).await.unwrap()), 6);
    }
    task.abort();
    let _ = task.await;
    assert!(!socket.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn one_that_says_nothing_does_not_hold_up_others() {
    let (_directory, socket) = place();
    let task = serve(&socket);
    let mut idle = StdStream::connect(&socket).unwrap();
    idle.write_all(b"\0\0").unwrap();
    let good = encode(&del(PROTOCOL_VERSION)).unwrap();
    assert_eq!(exchange(&socket, good).await.unwrap(), Reply::Deleted);
    let ended = tokio::task::spawn_blocking(move || {
        idle.set_read_timeout(Some(TIME_MAX + Duration::from_secs(5))).unwrap();
        idle.read(&mut [0; 1])
    });
    assert_eq!(ended.await.unwrap().unwrap(), 0, "closed after the time limit");
    task.abort();
}

/// A node is not called unable for that: the plugin hears nothing, as from an agent that is being replaced.
#[tokio::test]
async fn a_busy_agent_does_not_say_that_it_takes_no_pods() {
    let (_directory, socket) = place();
    let task = serve(&socket);
    let call = Call::Ready(protocol::ReadyCall { pools: true });
    let ready = encode(&Request { version: PROTOCOL_VERSION, call }).unwrap();
    let error = exchange(&socket, ready).await.unwrap_err();
    assert!(matches!(error, MessageError::Io(_)), "{error}");
    task.abort();
}

#[tokio::test]
async fn an_engine_that_takes_too_long_is_said_to_be_busy() {
    let (_directory, socket) = place();
    let mut server = Server::bind(&socket).unwrap();
    server.time_max = Duration::from_millis(200);
    let (engine, mut commands) = mpsc::channel::<Command>(1);
    let task = tokio::spawn(async move { server.serve(engine).await });
    let taken = tokio::spawn(async move { commands.recv().await.map(|one| (one, commands)) });
    let good = encode(&del(PROTOCOL_VERSION)).unwrap();
    // The first is taken and not answered, the second waits in the channel, the third before it.
    for _ in 0..3 {
        let reply = exchange(&socket, good.clone()).await.unwrap();
        let Reply::Failed(failure) = reply else { panic!("{reply:?}") };
        assert_eq!(failure.code, cni_shim::error::TRY_AGAIN, "{failure}");
        assert!(failure.message.contains("busy"), "{failure}");
    }
    assert!(taken.await.unwrap().is_some());
    task.abort();
}

#[tokio::test]
async fn one_whose_engine_ends_gets_no_reply() {
    let (_directory, socket) = place();
    let server = Server::bind(&socket).unwrap();
    let (engine, mut commands) = mpsc::channel::<Command>(4);
    let task = tokio::spawn(async move { server.serve(engine).await });
    let engine = tokio::spawn(async move { commands.recv().await.map(|_| ()) });
    let good = encode(&del(PROTOCOL_VERSION)).unwrap();
    for when in ["while it waits", "before it asks"] {
        let error = exchange(&socket, good.clone()).await.unwrap_err();
        assert!(matches!(error, MessageError::Io(_)), "{when}: {error}");
    }
    assert!(engine.await.unwrap().is_some());
    task.abort();
}

#[tokio::test]
async fn many_at_once() {
    let (_directory, socket) = place();
    let task = serve(&socket);
    let good = encode(&del(PROTOCOL_VERSION)).unwrap();
    let all: Vec<_> = (0..200)
        .map(|_| {
            let (socket, good) = (socket.clone(), good.clone());
            tokio::spawn(async move { exchange(&socket, good).await.unwrap() })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), Reply::Deleted);
    }
    task.abort();
}

#[tokio::test]
async fn what_is_in_the_way() {
    let (_directory, socket) = place();
    let first = Server::bind(&socket).unwrap();
    let error = Server::bind(&socket).unwrap_err();
    assert!(error.to_string().contains("another agent listens"), "{error}");
    std::mem::forget(first);
    // A listener that was leaked still listens: take its place by name, as after SIGKILL.
    fs::remove_file(&socket).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(StdStream::connect(&socket).is_err() && socket.exists(), "stale");
    let second = Server::bind(&socket).unwrap();
    assert!(StdStream::connect(&socket).is_ok());
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    drop(second);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine", "what is not ours stays");
    let error = Server::bind(&socket).unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
}
