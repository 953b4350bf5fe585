//! What a client sees: ping, TCP and UDP data.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::command;
use crate::namespace::Namespace;
use crate::server::{ECHO_PORT, WHO_PORT};

/// A packet that takes longer is lost.
const REPLY_TIME_MAX: Duration = Duration::from_secs(5);
/// A transfer that stands still for this long is broken.
const STALL_TIME_MAX: Duration = Duration::from_secs(8);
/// Enough for several windows and segments of the largest size.
pub const BULK_BYTES: usize = 3_000_001;

/// Pings once.
///
/// # Errors
/// When no reply comes, with what ping printed.
pub fn ping(from: &Namespace, to: IpAddr) -> Result<()> {
    ping_with(from, to, &[]).map(drop)
}

/// Pings once with further options, and returns what ping printed.
///
/// # Errors
/// When no reply comes.
pub fn ping_with(from: &Namespace, to: IpAddr, options: &[&str]) -> Result<String> {
    let mut ping = from.command("ping");
    ping.args(["-n", "-c", "1", "-W", "2"]).args(options).arg(to.to_string());
    command::run(&mut ping)
}

/// Sends bytes over TCP to the echo, which come back as they were.
///
/// # Errors
/// When a byte is wrong, or the connection breaks or stalls.
pub fn tcp(from: &Namespace, to: IpAddr, bytes: usize) -> Result<()> {
    tcp_from(from, None, to, bytes)
}

/// As [`tcp`], from a given source.
///
/// # Errors
/// As [`tcp`].
pub fn tcp_from(from: &Namespace, source: Option<IpAddr>, to: IpAddr, bytes: usize) -> Result<()> {
    let result = from.enter(|| exchange(connect(source, to, ECHO_PORT)?, bytes));
    result.with_context(|| format!("TCP {} to {to}", from.name()))
}

fn connect(source: Option<IpAddr>, to: IpAddr, port: u16) -> Result<TcpStream> {
    let to = SocketAddr::new(to, port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), REPLY_TIME_MAX).context("connect")?;
    socket.set_read_timeout(Some(STALL_TIME_MAX))?;
    socket.set_write_timeout(Some(STALL_TIME_MAX))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn exchange(mut stream: TcpStream, bytes: usize) -> Result<()> {
    let sent = pattern(bytes);
    let mut writer = stream.try_clone()?;
    let got = thread::scope(|scope| {
        let write = scope.spawn(|| -> Result<()> {
            writer.write_all(&sent).context("write")?;
            Ok(writer.shutdown(Shutdown::Write)?)
        });
        let mut got = Vec::with_capacity(bytes);
        let read = stream.read_to_end(&mut got);
        let written = write.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read.with_context(|| format!("read after {} bytes", got.len()))?;
        written?;
        anyhow::Ok(got)
    })?;
    ensure!(got.len() == sent.len(), "{} of {bytes} bytes came back", got.len());
    let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent);
    ensure!(wrong.is_none(), "byte {wrong:?} is wrong");
    Ok(())
}

/// Bytes without a short period.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Sends one datagram to the echo, which comes back as it was. One that is lost is not sent again.
///
/// # Errors
/// When it does not come back, or changed.
pub fn udp(from: &Namespace, to: IpAddr, bytes: usize) -> Result<()> {
    let result = from.enter(|| {
        let socket = udp_socket(None, to)?;
        socket.connect((to, ECHO_PORT))?;
        let sent = pattern(bytes);
        socket.send(&sent).context("send")?;
        let mut got = vec![0; bytes + 1];
        let length = socket.recv(&mut got).context("no answer")?;
        ensure!(got[..length] == sent[..], "{length} of {bytes} bytes, or others, came back");
        Ok(())
    });
    result.with_context(|| format!("UDP {bytes} bytes {} to {to}", from.name()))
}

/// A socket of the family of `to`, which waits a moment for what it receives.
///
/// # Errors
/// When it cannot be made.
pub fn udp_socket(source: Option<SocketAddr>, to: IpAddr) -> Result<UdpSocket> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(source.unwrap_or(SocketAddr::new(any, 0)))?;
    socket.set_read_timeout(Some(REPLY_TIME_MAX))?;
    Ok(socket)
}

/// The address from which a server sees a TCP connection come.
///
/// # Errors
/// When it cannot be reached.
pub fn seen_tcp(from: &Namespace, to: IpAddr) -> Result<IpAddr> {
    let text = from.enter(|| -> Result<String> {
        let mut text = String::new();
        connect(None, to, WHO_PORT)?.read_to_string(&mut text)?;
        Ok(text)
    });
    let peer: SocketAddr = text.with_context(|| format!("TCP {} to {to}", from.name()))?.parse()?;
    Ok(peer.ip())
}

/// The address from which a server sees a datagram come.
///
/// # Errors
/// When no answer comes.
pub fn seen_udp(from: &Namespace, to: IpAddr) -> Result<IpAddr> {
    let text = from.enter(|| -> Result<String> {
        let socket = udp_socket(None, to)?;
        socket.connect((to, WHO_PORT))?;
        socket.send(b"who")?;
        let mut got = [0; 100];
        let length = socket.recv(&mut got).context("no answer")?;
        Ok(String::from_utf8_lossy(&got[..length]).into_owned())
    });
    let peer: SocketAddr = text.with_context(|| format!("UDP {} to {to}", from.name()))?.parse()?;
    Ok(peer.ip())
}

/// All three: ping, TCP data, and datagrams of a small, a full and a fragmented size.
///
/// # Errors
/// With the first that fails.
pub fn all(from: &Namespace, to: IpAddr) -> Result<()> {
    small(from, to)?;
    udp(from, to, 8192)
}

/// As [`all`], over a path that is narrower for the answers than their sender knows: then the first
/// large datagram teaches it.
///
/// # Errors
/// With the first that fails.
pub fn all_after_discovery(from: &Namespace, to: IpAddr) -> Result<()> {
    small(from, to)?;
    udp(from, to, 8192).or_else(|_| udp(from, to, 8192))
}

fn small(from: &Namespace, to: IpAddr) -> Result<()> {
    ping(from, to)?;
    tcp(from, to, 200_000)?;
    udp(from, to, 1)?;
    udp(from, to, 1200)
}
