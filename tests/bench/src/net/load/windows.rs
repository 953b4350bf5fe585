//! Datagrams in windows: so many are sent, and the next when all have arrived. None is lost, and what is measured is the
//! work that each makes.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::net::way::Way;

/// Datagrams on their way: fewer than a socket holds by the kernel's defaults.
const WINDOW: usize = 32;

/// How many with so many bytes arrive in a second.
pub(super) fn per_second(way: &Way, bytes: usize, windows: usize) -> Result<f64> {
    let (client, server) = super::sockets(way)?;
    // One of another size is the last.
    let receiver = thread::spawn(move || -> Result<()> {
        let mut buffer = vec![0; bytes + 1];
        loop {
            let mut from = None;
            for _ in 0..WINDOW {
                let (length, sender) = server.recv_from(&mut buffer)?;
                if length != bytes {
                    return Ok(());
                }
                from = Some(sender);
            }
            server.send_to(&[1], from.context("a sender")?)?;
        }
    });
    let data = vec![0; bytes];
    let mut answer = [0];
    let mut window = || -> Result<()> {
        for _ in 0..WINDOW {
            client.send(&data)?;
        }
        ensure!(client.recv(&mut answer).context("a datagram is lost")? == 1, "no answer");
        Ok(())
    };
    window()?;
    let start = Instant::now();
    for _ in 0..windows {
        window()?;
    }
    let time = start.elapsed();
    client.send(&[])?;
    // Errors of the other end show at this one.
    let _ = receiver.join();
    Ok((WINDOW * windows) as f64 / time.as_secs_f64())
}
