//! Numbered datagrams at an even pace, while something else is done: which are lost, and which come twice.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespace::Namespace;
use crate::probe;
use crate::wait;

/// A thousand per second.
const INTERVAL: Duration = Duration::from_millis(1);
const PORT: u16 = 9100;
/// Seconds of packets: a receiver that is not scheduled loses none.
const RECEIVE_BYTES: usize = 16 << 20;
/// What says that packets flowed at all; where they flow for longer, four fifths of their pace do.
const SENT_MIN: usize = 1000;

/// From one place to another, to each of these addresses in turn. No two flows have the same receiver.
#[derive(Clone, Debug)]
pub struct Flow {
    /// For messages.
    pub name: String,
    /// Who sends.
    pub from: Namespace,
    /// Who receives.
    pub to: Namespace,
    /// Of the receiver.
    pub addresses: Vec<IpAddr>,
}

/// What became of the packets of a flow.
struct Counts {
    sent: BTreeSet<u32>,
    arrived: BTreeSet<u32>,
    twice: usize,
}

/// Does something while packets flow, and says how many did.
///
/// # Errors
/// When it fails, or a packet is lost or comes twice.
///
/// # Panics
/// When `work` panics.
pub fn nothing_is_lost<T>(flows: &[Flow], work: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    let (result, took, counts) = thread::scope(|scope| {
        let running: Vec<_> = flows.iter().map(|flow| scope.spawn(|| flow.run(&is_over))).collect();
        let end = End(&is_over);
        let result = work();
        let took = began.elapsed();
        drop(end);
        let counts = running
            .into_iter()
            .map(|flow| flow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (result, took, counts.collect::<Vec<_>>())
    });
    let done = result?;
    let wanted = (took.as_millis() as usize / 5 * 4).max(SENT_MIN);
    let mut total = 0;
    for (counts, Flow { name, .. }) in counts.into_iter().zip(flows) {
        let Counts { sent, arrived, twice } = counts?;
        let lost: Vec<&u32> = sent.difference(&arrived).collect();
        ensure!(sent.len() > wanted, "{name}: only {} packets, wanted {wanted}", sent.len());
        ensure!(
            lost.is_empty() && twice == 0,
            "{name}: of {} sent {} are lost ({:?} ...), {twice} came twice",
            sent.len(),
            lost.len(),
            lost.iter().take(20).collect::<Vec<_>>()
        );
        total += sent.len();
    }
    Ok((done, total))
}

/// Ends the flows, also when the work panics: they are waited for.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flow {
    fn run(&self, is_over: &AtomicBool) -> Result<Counts> {
        let mut receivers = Vec::new();
        let mut senders = Vec::new();
        for address in &self.addresses {
            let at = SocketAddr::new(*address, PORT);
            let receiver = self.to.enter(|| probe::udp_socket(Some(at), at.ip()))?;
            setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
            receivers.push(receiver);
            let sender = self.from.enter(|| probe::udp_socket(None, at.ip()))?;
            sender.connect(at)?;
            senders.push(sender);
        }
        let is_sent = AtomicBool::new(false);
        let mut sent = BTreeSet::new();
        let mut failures = 0;
        let arrived = thread::scope(|scope| {
            let receivers: Vec<_> =
                receivers.iter().map(|socket| scope.spawn(|| receive(socket, &is_sent))).collect();
            wait::pace_while(INTERVAL, |number| {
                let sender = &senders[number as usize % senders.len()];
                failures += u32::from(sender.send(&number.to_be_bytes()).is_err());
                sent.insert(number);
                !is_over.load(Ordering::Relaxed)
            });
            is_sent.store(true, Ordering::Relaxed);
            receivers.into_iter().map(|thread| thread.join().expect("a thread")).collect::<Vec<_>>()
        });
        ensure!(failures == 0, "{}: {failures} packets could not be sent", self.name);
        let total: usize = arrived.iter().map(Vec::len).sum();
        let arrived: BTreeSet<u32> = arrived.into_iter().flatten().collect();
        let twice = total - arrived.len();
        Ok(Counts { sent, arrived, twice })
    }
}

/// The numbers that arrive, until none comes any more.
fn receive(socket: &UdpSocket, is_sent: &AtomicBool) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut packet = [0; 4];
    loop {
        match socket.recv(&mut packet) {
            Ok(_) => numbers.push(u32::from_be_bytes(packet)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing for a while.
            Err(_) if is_sent.load(Ordering::Relaxed) => return numbers,
            Err(_) => {}
        }
    }
}
