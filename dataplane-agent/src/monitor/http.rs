//! The listener: limits, and the way from HTTP to answers and back.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Answer, Monitor};

/// For one connection, from accept to the end of the answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// At the same time. One more takes the place of the oldest, so that silent clients keep out nobody.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request that are read; the library's least.
const REQUEST_BYTES_MAX: usize = 8192;

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error(
        "another program listens at {0} (find it with `ss -ltnp 'sport = :{port}'`): stop it, or give \
         this agent another address with --listen",
        port = _0.port()
    )]
    Busy(SocketAddr),
    /// The system refused.
    #[error("cannot listen at {address}: {source}; correct --listen")]
    Io {
        /// Where.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(net::TcpListener);

impl Listener {
    /// Listens at the address.
    ///
    /// # Errors
    /// When somebody listens there, or the system refuses.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        match net::TcpListener::bind(address) {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(ListenError::Busy(address))
            }
            Err(source) => Err(ListenError::Io { address, source }),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves in a thread of its own: who looks does not hold up the agent, and a busy agent not who looks.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn serve(self, monitor: Arc<Monitor>) -> io::Result<Serving> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        self.0.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(self.0)?
        };
        let (stopper, stop) = oneshot::channel::<()>();
        let serve = async move {
            tokio::select! {
                () = accept(listener, monitor) => {}
                _ = stop => {}
            }
        };
        let thread = thread::Builder::new().name("monitor".to_owned());
        let thread = thread.spawn(move || runtime.block_on(serve))?;
        Ok(Serving { stopper: Some(stopper), thread: Some(thread) })
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it ends"]
pub struct Serving {
    stopper: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stopper.take());
        if let Some(thread) = self.thread.take() {
            // It has told of its panic itself.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, monitor: Arc<Monitor>) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(stream, Arc::clone(&monitor)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to health and metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Those that are open, the oldest first.
#[derive(Debug, Default)]
struct Connections(VecDeque<AbortHandle>);

impl Connections {
    fn add(&mut self, stream: TcpStream, monitor: Arc<Monitor>) {
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(CONNECTION_TIME_MAX, converse(stream, &monitor)).await {
                tracing::debug!(%error, "a connection to health and metrics ended early");
            }
        });
        self.0.push_back(connection.abort_handle());
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// One question, one answer.
async fn converse(stream: TcpStream, monitor: &Monitor) -> hyper::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(respond(request.method(), request.uri().path(), monitor))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME_MAX)
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond(method: &Method, path: &str, monitor: &Monitor) -> Response<Full<Bytes>> {
    let is_allowed = method == Method::GET || method == Method::HEAD;
    let answer =
        if is_allowed { monitor.answer(path) } else { Answer::text(405, "GET or HEAD, please") };
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if !is_allowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
