//! Datagrams from one pod to many, each to another one than the one before: what is remembered of the last ones helps
//! only while there are few.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::namespace::Namespace;
use tests::reference::Pair;

use super::STALL_TIME_MAX;
use crate::net::metric::Metric;
use crate::net::way::Way;

/// Datagrams on their way: fewer than a socket holds by the kernel's defaults.
const WINDOW: usize = 32;
const BYTES: usize = 64;
/// The same to many pods: all of ten thousand have some.
const WINDOWS: usize = 320;
const PORT: u16 = 5202;
/// What the floor sends to, and its first address.
const FLOOR: &str = "fd00:97::/64";
const FLOOR_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, 0x100);
/// From one to the next, so that they are in other namespaces; prime.
const STRIDE: usize = 7919;

/// Pods that take datagrams, and all their addresses.
#[derive(Debug)]
pub(crate) struct Peers {
    sockets: Vec<UdpSocket>,
    /// With the place of its socket.
    addresses: Vec<(SocketAddr, usize)>,
}

/// The same without Podwire: what the stacks of both ends take longer for, the more addresses there are.
#[derive(Debug)]
pub(crate) struct Floor {
    peers: Peers,
    client: Namespace,
}

impl Floor {
    /// Has the one end take datagrams at so many addresses, from the other.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn new(pair: &Pair, count: usize) -> Result<Self> {
        pair.route(FLOOR)?;
        let network = u128::from_be_bytes(FLOOR_ADDRESS.octets());
        let addresses = (0..count as u128).map(|number| Ipv6Addr::from(network + number).into());
        let peers = Peers::new(&[(pair.server.clone(), addresses.collect())])?;
        Ok(Self { peers, client: pair.client.clone() })
    }
}

impl Peers {
    /// The figures of a way, each turn beside one of its floor.
    ///
    /// # Errors
    /// When a datagram is lost.
    pub(super) fn figures(&self, way: &Way, floor: &Floor) -> Result<Vec<(Metric, f64)>> {
        let rate = self.per_second(&way.client, WINDOWS)?;
        let most = floor.peers.per_second(&floor.client, WINDOWS)?;
        Ok(vec![(Metric::Peers, rate), (Metric::PeersShare, rate / most)])
    }

    /// Has each pod take them at all its addresses, which are of IPv6.
    ///
    /// One route to the pod itself takes the place of its addresses: with thousands of them the look-up in the pod's own
    /// stack would take longer, and that is not what is measured.
    ///
    /// # Errors
    /// When one cannot.
    pub(crate) fn new(pods: &[(Namespace, Vec<IpAddr>)]) -> Result<Self> {
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for (place, (pod, own)) in pods.iter().enumerate() {
            pod.ip("route add local ::/0 dev lo\naddress flush dev eth0 scope global")?;
            let socket = pod.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
            socket.set_read_timeout(Some(STALL_TIME_MAX))?;
            sockets.push(socket);
            addresses.extend(own.iter().map(|address| ((*address, PORT).into(), place)));
        }
        Ok(Self { sockets, addresses })
    }

    /// How many datagrams arrive in a second, sent and received in turn by one thread.
    ///
    /// # Errors
    /// When one is lost.
    fn per_second(&self, client: &Namespace, windows: usize) -> Result<f64> {
        ensure!(!self.addresses.is_empty(), "nobody to send to");
        let client = client.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        let (data, mut buffer) = ([0; BYTES], [0; BYTES + 1]);
        let mut numbers = (0..).map(|number| number * STRIDE % self.addresses.len());
        let mut window = || -> Result<()> {
            let mut places = [0; WINDOW];
            for place in &mut places {
                let (to, at) = self.addresses[numbers.next().context("a number")?];
                client.send_to(&data, to)?;
                *place = at;
            }
            for place in places {
                let length = self.sockets[place].recv(&mut buffer).context("a datagram is lost")?;
                ensure!(length == BYTES, "{length} bytes");
            }
            Ok(())
        };
        window()?;
        let start = Instant::now();
        for _ in 0..windows {
            window()?;
        }
        Ok((WINDOW * windows) as f64 / start.elapsed().as_secs_f64())
    }
}
