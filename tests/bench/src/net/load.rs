//! What is sent over a way, and what comes of it.
//!
//! Two kinds. Our own ends take turns of hundredths of a second, on one processor: many short turns side by side tell a
//! difference of one in a hundred on a machine that others use, too. iperf3 takes a second at least, on all
//! processors: what people would measure themselves, and the processor time of it.

mod connections;
mod iperf;
mod peers;
mod programs;
mod softirq;
mod trips;
mod windows;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::conversation::{Conversation, Window};

pub(super) use self::iperf::{Servers, version};
pub(super) use self::peers::{Floor, Peers};
use self::programs::Times;
use super::metric::Metric;
use super::way::Way;

/// Nothing happens for this long only if something is broken.
const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// What a stream carries in one turn.
const STREAM: usize = 32 << 20;
/// Round trips of one turn.
const TRIPS: usize = 1000;
/// Connections of one turn.
const CONNECTIONS: usize = 100;
/// Windows of datagrams of one turn.
const WINDOWS: usize = 60;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// One TCP stream.
    Stream(Window),
    /// One byte there and back, again and again, in TCP.
    TcpTrips,
    /// The same in UDP.
    UdpTrips,
    /// Connect, ask, hear, close.
    Connections,
    /// Datagrams with so many bytes, none of which is lost.
    Windows(u16),
    /// Datagrams with 64 bytes, each to another pod than the one before.
    Peers,
    /// One TCP stream, while the kernel counts the time of programs.
    CountedStream,
    /// Datagrams of 64 bytes, while the kernel counts the time of programs.
    CountedWindows,
    /// So many TCP streams, by iperf3.
    Iperf(u8),
    /// As many datagrams with so many bytes as can be sent, by iperf3.
    Flood(u16),
}

impl Load {
    /// In short turns; what the limits are about.
    pub(super) const SHORT: [Self; 7] = [
        Self::Stream(Window::Small),
        Self::Stream(Window::Automatic),
        Self::TcpTrips,
        Self::UdpTrips,
        Self::Connections,
        Self::Windows(64),
        Self::Windows(1400),
    ];
    /// Those, and what depends on how many pods there are.
    pub(super) const BY_ENTRIES: [Self; 8] = [
        Self::Stream(Window::Small),
        Self::Stream(Window::Automatic),
        Self::TcpTrips,
        Self::UdpTrips,
        Self::Connections,
        Self::Windows(64),
        Self::Windows(1400),
        Self::Peers,
    ];
    /// In turns as short, which are slower for the counting.
    pub(super) const COUNTED: [Self; 2] = [Self::CountedStream, Self::CountedWindows];
    /// In long turns.
    pub(super) const LONG: [Self; 5] =
        [Self::Iperf(1), Self::Iperf(4), Self::Iperf(16), Self::Flood(64), Self::Flood(1400)];

    /// Sends, and measures.
    ///
    /// # Errors
    /// When nothing comes through, or a tool is missing.
    pub(super) fn run(self, way: &Way) -> Result<Vec<(Metric, f64)>> {
        match self {
            Self::Stream(window) => stream(way, window),
            Self::TcpTrips => Ok(trips::tcp(way, TRIPS)?.tcp_figures()),
            Self::UdpTrips => Ok(trips::udp(way, TRIPS)?.udp_figures()),
            Self::Connections => {
                Ok(vec![(Metric::Connections, connections::per_second(way, CONNECTIONS)?)])
            }
            Self::Windows(bytes) => {
                let metric = if bytes == 64 { Metric::Udp64 } else { Metric::Udp1400 };
                Ok(vec![(metric, windows::per_second(way, bytes.into(), WINDOWS)?)])
            }
            Self::Peers => match &way.peers {
                Some((peers, floor)) => peers.figures(way, floor),
                None => Ok(Vec::new()),
            },
            Self::CountedStream => {
                let times = counted(way, || stream(way, Window::Small).map(drop))?;
                Ok(times.map(|times| (Metric::Tcp1Programs, times.of_all())).into_iter().collect())
            }
            Self::CountedWindows => counted_windows(way),
            Self::Iperf(count) => {
                let (rate, cpu) = match count {
                    1 => (Metric::Iperf1, Metric::Iperf1Cpu),
                    4 => (Metric::Iperf4, Metric::Iperf4Cpu),
                    _ => (Metric::Iperf16, Metric::Iperf16Cpu),
                };
                iperf::streams(way, count).map(|streams| streams.figures(rate, cpu))
            }
            Self::Flood(bytes) => {
                let [rate, loss, cpu] = match bytes {
                    64 => [Metric::Flood64, Metric::Flood64Loss, Metric::Flood64Cpu],
                    _ => [Metric::Flood1400, Metric::Flood1400Loss, Metric::Flood1400Cpu],
                };
                iperf::flood(way, bytes).map(|flood| flood.figures(rate, loss, cpu))
            }
        }
    }
}

fn stream(way: &Way, window: Window) -> Result<Vec<(Metric, f64)>> {
    let metric = match window {
        Window::Small => Metric::Tcp1,
        Window::Automatic => Metric::Tcp1Auto,
    };
    let mut conversation = Conversation::new(&way.client, &way.server, way.address, window)?;
    let time = conversation.stream(STREAM)?;
    let mut figures = vec![(metric, STREAM as f64 * 8.0 / time.as_secs_f64() / 1e9)];
    if window == Window::Automatic {
        figures.push((Metric::Tcp1Memory, conversation.memory(STREAM)? as f64 / 1024.0));
    }
    Ok(figures)
}

/// Nothing is sent, or measured, where packets meet no program.
fn counted(way: &Way, send: impl FnOnce() -> Result<()>) -> Result<Option<Times>> {
    way.label.contender.has_programs().then(|| programs::times(send)).transpose()
}

/// Of all programs, and of each of ours that is on the way.
fn counted_windows(way: &Way) -> Result<Vec<(Metric, f64)>> {
    let Some(times) = counted(way, || windows::per_second(way, 64, WINDOWS).map(drop))? else {
        return Ok(Vec::new());
    };
    let of_each = Metric::OF_PROGRAMS
        .into_iter()
        .filter_map(|(name, metric)| Some((metric, times.of(name)?)));
    Ok([(Metric::Udp64Programs, times.of_all())].into_iter().chain(of_each).collect())
}

/// For datagrams: that of the client, connected, and that of the server.
fn sockets(way: &Way) -> Result<(UdpSocket, UdpSocket)> {
    let server = way.server.enter(|| UdpSocket::bind((way.address, 0))).context("bind")?;
    let to = server.local_addr()?;
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let client = way.client.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to).map(|()| socket)
    })?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(STALL_TIME_MAX))?;
    }
    Ok((client, server))
}
