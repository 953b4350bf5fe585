//! Connect, ask with a byte, hear one, close.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::STALL_TIME_MAX;
use crate::net::way::Way;

/// How many in a second, one after the other. Each turn has a port of its own, so that those that have ended
/// (`TIME_WAIT`) are in nobody's way.
pub(super) fn per_second(way: &Way, count: usize) -> Result<f64> {
    let listener = way.server.enter(|| TcpListener::bind((way.address, 0))).context("listen")?;
    let to = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<()> {
        let mut byte = [0];
        for _ in 0..count {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(STALL_TIME_MAX))?;
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
            // The client closes first.
            let _ = stream.read(&mut byte)?;
        }
        Ok(())
    });
    let time = way.client.enter(|| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..count {
            let mut stream = TcpStream::connect_timeout(&to, STALL_TIME_MAX)
                .with_context(|| format!("connect to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STALL_TIME_MAX))?;
            let mut byte = [1];
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
        }
        Ok(start.elapsed())
    })?;
    let _ = server.join();
    Ok(count as f64 / time.as_secs_f64())
}
