//! Two TCP connections between the same two namespaces: one for round trips, one for a stream.
//!
//! Their ends are on one processor, so that what is measured is the work that a way makes. On two, the same
//! stream has anything from 4 to 45 Gbit/s, a bare veth pair's, too: whether packets overtake each other, and
//! whether what is on its way fits the processors' caches, decides it (hence the window, too).

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{SysconfVar, sysconf};

use crate::namespace::Namespace;

/// Nothing happens for this long only if something is broken.
const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of one write. With writes of 128 KiB it decides how many packets there are whether the rest of one
/// behind whole aggregates is longer than a segment: with an MTU of 1450 it is, with 1500 not.
const WRITE: usize = 1 << 20;
/// What is sent before the clock starts: a connection starts slowly.
const LEAD: usize = 4 * WRITE;
/// Bytes on their way at most, of which the kernel makes twice as many: they fit the caches.
const WINDOW: usize = 256 << 10;
/// The kernel's default, whatever the machine has been set to: BBR paces by its estimates of rate and
/// shortest round trip, and then it is these that are measured.
const CONGESTION: &str = "cubic";

/// Sockets in use, and their memory.
const SOCKETS: &str = "/proc/net/sockstat";

/// How many bytes are on their way at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// So few that they fit the processors' caches.
    Small,
    /// As the kernel chooses: the largest packets need more.
    Automatic,
}

/// Two connections from a client to a server.
#[derive(Debug)]
pub struct Conversation {
    echo: TcpStream,
    sink: TcpStream,
}

impl Conversation {
    /// Connects. The other ends are threads that end with it.
    ///
    /// # Errors
    /// When one does not reach the other.
    pub fn new(
        client: &Namespace,
        server: &Namespace,
        address: IpAddr,
        window: Window,
    ) -> Result<Self> {
        Ok(Self {
            echo: connect(client, server, address, window, echo)?,
            sink: connect(client, server, address, window, drain)?,
        })
    }

    /// How long each of `count` round trips of one byte takes.
    ///
    /// # Errors
    /// When the other end is silent.
    pub fn round_trips(&mut self, count: usize) -> Result<Vec<Duration>> {
        let mut byte = [1];
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            self.echo.write_all(&byte)?;
            self.echo.read_exact(&mut byte)?;
            times.push(start.elapsed());
        }
        Ok(times)
    }

    /// How long it takes until the other end has `bytes`, in whole writes.
    ///
    /// # Errors
    /// When the other end does not take them.
    pub fn stream(&mut self, bytes: usize) -> Result<Duration> {
        let data = vec![0; WRITE];
        self.send(LEAD, &data)?;
        let start = Instant::now();
        self.send(bytes, &data)?;
        Ok(start.elapsed())
    }

    /// The most memory, in bytes, that TCP takes while the other end gets `bytes`, in whole writes: of both ends, and
    /// of whatever else on this machine uses TCP meanwhile.
    ///
    /// # Errors
    /// When the other end does not take them, or the kernel does not say.
    pub fn memory(&mut self, bytes: usize) -> Result<u64> {
        let before = memory_of_tcp()?;
        let mut most = before;
        self.send_watched(bytes, &vec![0; WRITE], || {
            most = most.max(memory_of_tcp()?);
            Ok(())
        })?;
        Ok(most.saturating_sub(before))
    }

    fn send(&mut self, bytes: usize, data: &[u8]) -> Result<()> {
        self.send_watched(bytes, data, || Ok(()))
    }

    /// Looks after each write.
    fn send_watched(
        &mut self,
        bytes: usize,
        data: &[u8],
        mut look: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        self.sink.write_all(&u64::try_from(bytes)?.to_le_bytes())?;
        for _ in 0..bytes / data.len() {
            self.sink.write_all(data)?;
            look()?;
        }
        Ok(self.sink.read_exact(&mut [0])?)
    }
}

/// Bytes that the sockets of TCP of all namespaces take (proc(5), `/proc/net/sockstat`: in pages).
fn memory_of_tcp() -> Result<u64> {
    let text = fs::read_to_string(SOCKETS).with_context(|| format!("read {SOCKETS}"))?;
    let pages = pages_of_tcp(&text).with_context(|| format!("{SOCKETS} has no TCP: {text}"))?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.context("the size of a page")?;
    Ok(pages * u64::try_from(page)?)
}

fn pages_of_tcp(sockets: &str) -> Option<u64> {
    let line = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

/// Connects to a thread that serves the other end until the connection ends.
fn connect(
    client: &Namespace,
    server: &Namespace,
    address: IpAddr,
    window: Window,
    serve: fn(TcpStream) -> std::io::Result<()>,
) -> Result<TcpStream> {
    let listener = server.enter(|| TcpListener::bind((address, 0))).context("listen")?;
    if window == Window::Small {
        setsockopt(&listener, sockopt::RcvBuf, &WINDOW)?;
    }
    let to = listener.local_addr()?;
    // Errors of the other end show at this one.
    thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        anyhow::Ok(serve(stream)?)
    });
    let stream = client
        .enter(|| TcpStream::connect_timeout(&to, STALL_TIME_MAX))
        .with_context(|| format!("connect to {to}"))?;
    if window == Window::Small {
        setsockopt(&stream, sockopt::SndBuf, &WINDOW)?;
    }
    setsockopt(&stream, sockopt::TcpCongestion, &OsString::from(CONGESTION))
        .with_context(|| format!("congestion control {CONGESTION}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_TIME_MAX))?;
    stream.set_write_timeout(Some(STALL_TIME_MAX))?;
    Ok(stream)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Takes a length and as many bytes, again and again, and confirms each with a byte.
fn drain(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; WRITE];
    let mut length = [0; size_of::<u64>()];
    while stream.read_exact(&mut length).is_ok() {
        let mut rest = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        while rest > 0 {
            let most = rest.min(buffer.len());
            match stream.read(&mut buffer[..most])? {
                0 => return Ok(()),
                read => rest -= read,
            }
        }
        stream.write_all(&[0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests_of_conversations {
    use super::*;

    #[test]
    fn the_pages_of_tcp_are_read_among_others() {
        let sockets = "sockets: used 9\nTCP: inuse 4 orphan 0 tw 0 alloc 5 mem 37\n\
                       UDP: inuse 1 mem 2\n";
        assert_eq!(pages_of_tcp(sockets), Some(37));
        assert_eq!(pages_of_tcp("UDP: inuse 1 mem 2\n"), None);
    }
}
