//! An API server whose every answer a test gives.

use std::net::SocketAddr;
use std::time::Duration;

use kube::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::nodes::kubernetes::client::ApiServer;

/// For anything that a test waits for.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The server.
pub(super) struct Server {
    address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
}

/// A request that waits for its answer; dropping it breaks the connection.
pub(super) struct Asked {
    /// Method, path and query.
    pub(super) line: String,
    pub(super) body: String,
    stream: TcpStream,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to, asked) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Some(asked) = read(accepted.unwrap().0).await {
                            let _ = to.send(asked).await;
                        }
                    }
                    () = to.closed() => return,
                }
            }
        });
        Self { address, asked }
    }

    /// Goes away; whoever asks is refused. Comes back at the same address.
    pub(super) async fn restart_after(self, what: impl Future<Output = ()>) -> Self {
        let Self { address, mut asked } = self;
        asked.close();
        drop(asked);
        what.await;
        Self::start_at(address).await
    }

    pub(super) fn client(&self) -> ApiServer {
        let url = format!("http://{}", self.address);
        ApiServer::with(Config::new(url.parse().unwrap())).unwrap()
    }

    /// The next request, which has to have all these parts.
    pub(super) async fn asked(&mut self, parts: &[&str]) -> Asked {
        let asked = timeout(TIME_MAX, self.asked.recv()).await.unwrap().unwrap();
        for part in parts {
            assert!(asked.line.contains(part), "wanted {part} in {}", asked.line);
        }
        asked
    }

    /// A streamed list of these nodes; what is returned is the watch that goes on.
    pub(super) async fn list(&mut self, nodes: &[String], version: u32) -> Asked {
        let mut asked = self.asked(&["sendInitialEvents=true", "watch=true"]).await;
        asked.begin(200).await;
        for node in nodes {
            asked.event("ADDED", node).await;
        }
        let annotations = r#""annotations": { "k8s.io/initial-events-end": "true" }"#;
        asked.bookmark(version, &format!(", {annotations}")).await;
        asked
    }
}

async fn read(mut stream: TcpStream) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.ok()?));
    }
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let line = head.lines().next()?.to_owned();
    Some(Asked { line, body: String::from_utf8(body).unwrap(), stream })
}

impl Asked {
    /// The head of an answer that goes on until it is dropped.
    pub(super) async fn begin(&mut self, code: u16) {
        let head = format!(
            "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// A line of the answer.
    pub(super) async fn line(&mut self, text: &str) {
        let text = text.replace('\n', " ");
        let chunk = format!("{:x}\r\n{text}\n\r\n", text.len() + 1);
        self.stream.write_all(chunk.as_bytes()).await.unwrap();
    }

    pub(super) async fn event(&mut self, kind: &str, object: &str) {
        self.line(&format!(r#"{{ "type": "{kind}", "object": {object} }}"#)).await;
    }

    pub(super) async fn bookmark(&mut self, version: u32, more: &str) {
        let object = format!(
            r#"{{ "apiVersion": "v1", "kind": "Node",
                  "metadata": {{ "resourceVersion": "{version}"{more} }} }}"#
        );
        self.event("BOOKMARK", &object).await;
    }

    /// The end of the answer.
    pub(super) async fn end(mut self) {
        let _ = self.stream.write_all(b"0\r\n\r\n").await;
    }

    /// The whole answer.
    pub(super) async fn answer(mut self, code: u16, text: &str) {
        self.begin(code).await;
        self.line(text).await;
        self.end().await;
    }

    pub(super) async fn refuse(self, code: u16, message: &str) {
        self.answer(code, &status(code, message)).await;
    }
}

/// An error as the API has it.
pub(super) fn status(code: u16, message: &str) -> String {
    format!(
        r#"{{ "kind": "Status", "apiVersion": "v1", "metadata": {{}}, "status": "Failure",
              "message": "{message}", "reason": "X", "code": {code} }}"#
    )
}

/// A node object: `b` has the number 2.
pub(super) fn node(name: char, version: u32, more: &str) -> String {
    let number = u32::from(name) - u32::from('a') + 1;
    format!(
        r#"{{ "apiVersion": "v1", "kind": "Node",
             "metadata": {{ "name": "{name}", "uid": "uid-{name}", "resourceVersion": "{version}",
                 "creationTimestamp": "2026-01-01T00:00:{number:02}Z" }},
             "spec": {{ "podCIDRs": ["10.244.{number}.0/24"]{more} }},
             "status": {{ "addresses":
                 [{{ "type": "InternalIP", "address": "192.168.1.1{number}" }}] }} }}"#
    )
}
