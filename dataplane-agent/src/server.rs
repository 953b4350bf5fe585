//! The Unix socket: framing, limits, and the way to the engine.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cni_shim::protocol::{
    Call, Failure, MESSAGE_BYTES_MAX, MessageError, PROTOCOL_VERSION, Reply, Request, encode,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::engine::Command;
use crate::failure;
use crate::monitor::{self, Calls};

/// For one connection from accept to reply, and again for sending it.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// At the same time; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 128;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody listens there.
    #[error(
        "another agent listens at {}: stop it first, or give this one another --socket",
        _0.display()
    )]
    Busy(PathBuf),
    /// It is not a socket.
    #[error("{} exists and is not a socket: remove it, or give another --socket", _0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {}: {source}", socket.display())]
    Io {
        /// Where.
        socket: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A socket that is removed from the file system when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    inode: u64,
    time_max: Duration,
    calls: Calls,
}

impl Server {
    /// Listens at `socket`, for its owner alone. Replaces a socket that nobody listens at.
    ///
    /// # Errors
    /// When somebody listens there, something else is there, or the system refuses.
    pub fn bind(socket: &Path) -> Result<Self, ServerError> {
        match fs::symlink_metadata(socket) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket(socket.to_owned()));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(socket).is_ok() => {
                return Err(ServerError::Busy(socket.to_owned()));
            }
            Ok(_) | Err(_) => {}
        }
        let (listener, inode) = listen(socket)
            .map_err(|source| ServerError::Io { socket: socket.to_owned(), source })?;
        Ok(Self {
            listener,
            socket: socket.to_owned(),
            inode,
            time_max: CONNECTION_TIME_MAX,
            calls: Calls::default(),
        })
    }

    /// Counts calls there.
    #[must_use]
    pub fn counted(self, calls: Calls) -> Self {
        let mut server = self;
        server.calls = calls;
        server
    }

    /// What it has counted.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Serves until this future is dropped.
    pub async fn serve(&self, engine: mpsc::Sender<Command>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (engine, time_max) = (engine.clone(), self.time_max);
                    let calls = self.calls.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = converse(stream, &engine, &calls, time_max).await {
                            tracing::debug!(%error, "a connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only what is ours: a successor may have put its own there.
        if fs::symlink_metadata(&self.socket).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// Made beside its place and renamed, so that it is never there with other permissions.
fn listen(socket: &Path) -> io::Result<(UnixListener, u64)> {
    let new = socket.with_extension(format!("new{}", std::process::id()));
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&new)?.ino();
    fs::rename(&new, socket)?;
    Ok((listener, inode))
}

async fn converse(
    mut stream: UnixStream,
    engine: &mpsc::Sender<Command>,
    calls: &Calls,
    time_max: Duration,
) -> Result<(), MessageError> {
    let deadline = Instant::now() + time_max;
    let late = |_| MessageError::Io(io::ErrorKind::TimedOut.into());
    let reply = match timeout_at(deadline, read_request(&mut stream)).await.map_err(late)? {
        Ok(request) => {
            let (call, start) = (monitor::call_name(&request.call), Instant::now());
            let is_about_us = matches!(request.call, Call::Ready(_));
            let reply = match timeout_at(deadline, ask(request, engine)).await {
                Ok(Some(reply)) => reply,
                // The agent stops. Without a reply the plugin asks its successor.
                Ok(None) => return Ok(()),
                // A node whose agent is busy takes pods. Without a reply the plugin says so.
                Err(_) if is_about_us => return Ok(()),
                Err(_) => Reply::Failed(failure::try_again(
                    "the agent is busy",
                    &format!("it did not come to this call within {} s", time_max.as_secs()),
                )),
            };
            calls.count(call, start.elapsed(), &reply);
            reply
        }
        Err(ReadError::Refused(failure)) => Reply::Failed(failure),
        Err(ReadError::Io(error)) => return Err(error.into()),
    };
    let message = encode(&reply).or_else(|error| {
        encode(&Reply::Failed(failure::bad_request(&format!("no reply: {error}"))))
    })?;
    timeout(time_max, stream.write_all(&message)).await.map_err(late)??;
    Ok(stream.shutdown().await?)
}

enum ReadError {
    Io(io::Error),
    Refused(Failure),
}

async fn read_request(stream: &mut UnixStream) -> Result<Request, ReadError> {
    let length = stream.read_u32().await.map_err(ReadError::Io)?;
    if length > MESSAGE_BYTES_MAX {
        let error = MessageError::TooLong(u64::from(length)).to_string();
        return Err(ReadError::Refused(failure::bad_request(&error)));
    }
    let mut body = Vec::new();
    let read = stream.take(u64::from(length)).read_to_end(&mut body).await;
    if read.map_err(ReadError::Io)? < length as usize {
        return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    parse(&body).map_err(ReadError::Refused)
}

/// The version first: another version may have calls that do not parse.
fn parse(body: &[u8]) -> Result<Request, Failure> {
    let refuse = |error: serde_json::Error| failure::bad_request(&error.to_string());
    let document: serde_json::Value = serde_json::from_slice(body).map_err(refuse)?;
    match document.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version != u64::from(PROTOCOL_VERSION) => Err(failure::version(version)),
        Some(_) | None => serde_json::from_value(document).map_err(refuse),
    }
}

/// None when the engine has ended.
async fn ask(request: Request, engine: &mpsc::Sender<Command>) -> Option<Reply> {
    let (reply, answer) = oneshot::channel();
    engine.send(Command { call: request.call, reply }).await.ok()?;
    answer.await.ok()
}

#[cfg(test)]
mod tests;
