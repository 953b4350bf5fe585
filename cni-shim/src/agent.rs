//! The agent, as the plugin calls it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context as _, DECODE, IO, PROTOCOL, TRY_AGAIN, failure};
use crate::names::{PLUGIN_FILE, PluginFile, beside};
use crate::protocol::{self, Call, Failure, PROTOCOL_VERSION, Reply, Request};

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
pub(crate) fn ask(socket: &Path, call: Call, patience: Duration) -> Result<Reply, Failure> {
    let deadline = Instant::now() + patience;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= deadline => {
                return Err(failure(
                    TRY_AGAIN,
                    format!("no agent answers on {} ({error})", socket.display()),
                    "is podwire-agent running on this node? `podwire-agent status` tells",
                ));
            }
            Err(_) => thread::sleep(RETRY_STEP),
        }
    };
    let what = || format!("talk to the agent on {}", socket.display());
    stream.set_read_timeout(Some(ANSWER_MAX)).context(IO, what)?;
    stream.set_write_timeout(Some(ANSWER_MAX)).context(IO, what)?;
    let request = Request { version: PROTOCOL_VERSION, call };
    protocol::write(&mut stream, &request).context(TRY_AGAIN, what)?;
    match protocol::read(&mut stream).context(TRY_AGAIN, what)? {
        Reply::Failed(failure) => Err(failure),
        reply @ (Reply::Added(_) | Reply::Deleted | Reply::Status(_)) => Ok(reply),
    }
}
