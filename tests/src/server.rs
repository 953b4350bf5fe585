//! Small servers for real sockets: an echo, and one that says whom it sees.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{
    IpAddr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
    UdpSocket,
};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{self, SockaddrStorage};

use crate::namespace::Namespace;

/// Port, TCP and UDP, that sends back what it gets.
pub const ECHO_PORT: u16 = 7007;
/// Port, TCP and UDP, that sends the address and port from which it is spoken to.
pub const WHO_PORT: u16 = 7008;
/// A connection on which nothing happens for this long is dropped.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest datagram that can be.
const DATAGRAM_BYTES_MAX: usize = 65_535;

type Streams = Arc<Mutex<Vec<TcpStream>>>;

/// Servers in a namespace. They stop when dropped.
#[derive(Debug)]
pub struct Server {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    streams: Streams,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts them: TCP on all addresses, UDP on these.
    ///
    /// # Errors
    /// When a port is in use.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Result<Self> {
        let mut server =
            Self { tcp: Vec::new(), udp: Vec::new(), streams: Arc::default(), threads: Vec::new() };
        for (port, serve) in [(ECHO_PORT, Service::Echo), (WHO_PORT, Service::Who)] {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let listener = namespace.enter(|| TcpListener::bind(any)).context("listen")?;
            server.tcp.push(listener.try_clone()?);
            let streams = Arc::clone(&server.streams);
            server.threads.push(thread::spawn(move || serve_tcp(&listener, serve, &streams)));
            for address in addresses {
                // One socket per address: the answer leaves from the address that was asked.
                let at = SocketAddr::from((*address, port));
                let socket =
                    namespace.enter(|| UdpSocket::bind(at)).with_context(|| format!("{at}"))?;
                server.udp.push(socket.try_clone()?);
                server.threads.push(thread::spawn(move || serve_udp(&socket, serve)));
            }
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also of a listener and of an unconnected socket this wakes up those who wait.
        let sockets =
            self.tcp.iter().map(AsRawFd::as_raw_fd).chain(self.udp.iter().map(AsRawFd::as_raw_fd));
        for socket in sockets {
            let _ = socket::shutdown(socket, socket::Shutdown::Both);
        }
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Service {
    Echo,
    Who,
}

fn serve_tcp(listener: &TcpListener, service: Service, streams: &Streams) {
    while let Ok((mut stream, peer)) = listener.accept() {
        if let Ok(clone) = stream.try_clone() {
            streams.lock().unwrap_or_else(PoisonError::into_inner).push(clone);
        }
        thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(IDLE_TIME_MAX));
            let _ = stream.set_write_timeout(Some(IDLE_TIME_MAX));
            let _ = stream.set_nodelay(true);
            match service {
                Service::Echo => echo(&mut stream),
                Service::Who => {
                    let _ = stream.write_all(name(peer).as_bytes());
                }
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

fn echo(stream: &mut TcpStream) {
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn socket_address(peer: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = peer.as_sockaddr_in().map(|peer| SocketAddrV4::from(*peer).into());
    ipv4.or_else(|| peer.as_sockaddr_in6().map(|peer| SocketAddrV6::from(*peer).into()))
}

fn serve_udp(socket: &UdpSocket, service: Service) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // Not `recv_from` of std: it panics on a socket that was shut down, which has no peer.
        let received = socket::recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer)
            .map(|(length, peer)| (length, peer.as_ref().and_then(socket_address)));
        match received {
            Ok((_, None) | (0, _)) => return,
            Ok((length, Some(peer))) => {
                let _ = match service {
                    Service::Echo => socket.send_to(&buffer[..length], peer),
                    Service::Who => socket.send_to(name(peer).as_bytes(), peer),
                };
            }
            // ICMP errors about earlier answers.
            Err(Errno::ECONNREFUSED | Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// An IPv4 address as such, also on a socket of both families.
fn name(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}
