//! One byte to and fro over TCP.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// Nothing happens for this long only if something is broken.
const STALL_TIME_MAX: Duration = Duration::from_secs(10);

/// How long each of `count` round trips took, sorted.
///
/// Both sides are on one processor, so that the way counts and not the waking of another processor.
pub(super) fn round_trips(
    client: &Namespace,
    server: &Namespace,
    address: IpAddr,
    count: usize,
) -> Result<Vec<Duration>> {
    let listener = server.enter(|| TcpListener::bind((address, 0))).context("listen")?;
    let to = listener.local_addr()?;
    let mut times = thread::scope(|scope| {
        let answer = scope.spawn(|| answer(&listener));
        let times = client.enter(|| ask(TcpStream::connect_timeout(&to, STALL_TIME_MAX)?, count));
        // A server that nobody reached waits for ever: it is left to the end of the process.
        let times = times.with_context(|| format!("ping-pong with {to}"))?;
        answer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        anyhow::Ok(times)
    })?;
    times.sort();
    Ok(times)
}

fn answer(listener: &TcpListener) -> Result<()> {
    pin()?;
    let (mut stream, _) = listener.accept()?;
    prepare(&stream)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn ask(mut stream: TcpStream, count: usize) -> Result<Vec<Duration>> {
    pin()?;
    prepare(&stream)?;
    let mut byte = [1];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_TIME_MAX))?;
    Ok(stream.set_write_timeout(Some(STALL_TIME_MAX))?)
}

/// Keeps the calling thread on the first processor.
fn pin() -> Result<()> {
    let mut first = CpuSet::new();
    first.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &first).context("choose a processor")
}
