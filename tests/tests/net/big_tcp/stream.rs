//! A stream of TCP, and how long the packets of it are.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use serde_json::Value;
use tests::namespace::Namespace;

/// Enough for windows to open, and for the mean to be that of what follows.
const BYTES: usize = 64 << 20;
const PORT: u16 = 7100;
const STALL_TIME_MAX: Duration = Duration::from_secs(20);

/// Sends bytes one way, and returns how many there were in a packet of this device in the mean.
pub(super) fn mean(
    from: &Namespace,
    to: (&Namespace, IpAddr),
    device: (&Namespace, &str),
) -> Result<u64> {
    let before = sent(device)?;
    let (listener, at) = (to.0, SocketAddr::new(to.1, PORT));
    let listener = listener.enter(|| TcpListener::bind(at))?;
    let received = thread::scope(|scope| -> Result<usize> {
        let receive = scope.spawn(move || receive(&listener));
        let mut stream = from.enter(|| TcpStream::connect_timeout(&at, STALL_TIME_MAX))?;
        stream.set_write_timeout(Some(STALL_TIME_MAX))?;
        stream.write_all(&vec![7; BYTES]).with_context(|| format!("to {at}"))?;
        drop(stream);
        receive.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(received == BYTES, "{received} bytes came to {at}");
    let (packets, bytes) = sent(device)?;
    Ok((bytes - before.1) / (packets - before.0))
}

fn receive(listener: &TcpListener) -> Result<usize> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(STALL_TIME_MAX))?;
    let (mut piece, mut all) = (vec![0; 1 << 20], 0);
    loop {
        let length = stream.read(&mut piece).with_context(|| format!("after {all} bytes"))?;
        if length == 0 {
            return Ok(all);
        }
        ensure!(piece[..length].iter().all(|byte| *byte == 7), "a byte is wrong");
        all += length;
    }
}

/// Packets and bytes that a device has sent.
fn sent((namespace, device): (&Namespace, &str)) -> Result<(u64, u64)> {
    let shown = namespace.run(&format!("ip -s -j link show {device}"))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let sent = &shown[0]["stats64"]["tx"];
    let count = |name: &str| sent[name].as_u64().with_context(|| format!("{name} of {device}"));
    Ok((count("packets")?, count("bytes")?))
}

/// What `ip` shows of a device: how long packets may be that it sends, and that it puts together, of IPv6.
pub(super) fn sizes(namespace: &Namespace, device: &str) -> Result<[u64; 2]> {
    let shown = namespace.run(&format!("ip -d -j link show {device}"))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let size = |name: &str| shown[0][name].as_u64().with_context(|| format!("{name} of {device}"));
    Ok([size("gso_max_size")?, size("gro_max_size")?])
}

/// Sets how long packets of both families may be. By netlink, as `ip` does not know those of IPv4 everywhere.
pub(super) fn set_sizes(namespace: &Namespace, device: &str, size: u32) -> Result<()> {
    // RTM_SETLINK; NLM_F_REQUEST and NLM_F_ACK.
    const HEADER: (u16, u16) = (19, 5);
    // IFLA_GSO_MAX_SIZE, IFLA_GRO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE.
    const ATTRIBUTES: [u16; 4] = [41, 58, 63, 64];
    namespace.enter(|| {
        let index = nix::net::if_::if_nametoindex(device)?;
        let mut body = Vec::new();
        for word in [0, index, 0, 0] {
            body.extend(word.to_ne_bytes());
        }
        for attribute in ATTRIBUTES {
            body.extend([8_u16, attribute].map(u16::to_ne_bytes).concat());
            body.extend(size.to_ne_bytes());
        }
        let mut message = (u32::try_from(body.len())? + 16).to_ne_bytes().to_vec();
        message.extend([HEADER.0, HEADER.1].map(u16::to_ne_bytes).concat());
        message.extend([0; 8]);
        message.extend(body);
        let flags = SockFlag::SOCK_CLOEXEC;
        let kind = SockType::Raw;
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, kind, flags, route)?;
        sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 256];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        ensure!(length >= 20 && answer[16..20] == [0; 4], "refused: {:?}", &answer[16..20]);
        Ok(())
    })
}
