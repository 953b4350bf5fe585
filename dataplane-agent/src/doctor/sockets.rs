//! Sockets of the node, as the kernel lists them in `/proc/net`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `TCP_LISTEN` of the kernel's `net/tcp_states.h`.
const LISTEN: &str = "0A";

/// Where something waits for packets or connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sockets {
    pub(super) udp: Vec<SocketAddr>,
    /// Those that listen.
    pub(super) tcp: Vec<SocketAddr>,
}

impl Sockets {
    /// What cannot be read is left out: kernels without IPv6 have half of the files.
    pub(super) fn look() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        let both = |name: &str, state: Option<&str>| {
            let texts = [read(name), read(&format!("{name}6"))];
            texts.iter().flat_map(|text| parse(text, state)).collect()
        };
        Self { udp: both("udp", None), tcp: both("tcp", Some(LISTEN)) }
    }

    pub(super) fn has_udp(&self, port: u16) -> bool {
        self.udp.iter().any(|socket| socket.port() == port)
    }

    pub(super) fn listens(&self, port: u16) -> bool {
        self.tcp.iter().any(|socket| socket.port() == port)
    }

    /// One beside which nobody can listen at this address.
    pub(super) fn in_the_way(&self, of: SocketAddr) -> Option<SocketAddr> {
        let is_any = |ip: IpAddr| ip.to_canonical().is_unspecified();
        let clashes = |socket: &&SocketAddr| {
            let (one, other) = (socket.ip(), of.ip());
            // One that is open to all of IPv6 is open to IPv4, too, as the kernel has it by default.
            let meet = is_any(one) && (one.is_ipv6() || other.is_ipv4())
                || is_any(other) && (other.is_ipv6() || one.is_ipv4())
                || one.to_canonical() == other.to_canonical();
            socket.port() == of.port() && meet
        };
        self.tcp.iter().find(clashes).copied()
    }
}

/// Lines such as `0: 0100007F:1F90 00000000:0000 0A ...`.
fn parse(text: &str, state: Option<&str>) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let is_wanted = state.is_none_or(|state| fields.nth(1) == Some(state));
        let (ip, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        is_wanted.then_some(SocketAddr::new(ip_of(ip)?, port))
    };
    text.lines().skip(1).filter_map(address).collect()
}

/// Words of four bytes, each as a number of the machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..hex.len())
        .step_by(8)
        .map(|at| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [one] => Some(IpAddr::V4(Ipv4Addr::from(*one))),
        [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0B01A8C0:D431 0C01A8C0:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:268D 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 000000FD000000000000000011000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_tables_are_read() {
        assert_eq!(parse(TCP, Some(LISTEN)), ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(parse(TCP, None).len(), 2);
        let six: Vec<SocketAddr> = parse(TCP6, Some(LISTEN));
        assert_eq!(six, ["[::]:9869".parse().unwrap(), "[fd00::11]:80".parse().unwrap()]);
    }

    #[test]
    fn addresses_clash_when_one_is_open_to_all() {
        let sockets =
            |text: &str| Sockets { tcp: vec![text.parse().unwrap()], ..Sockets::default() };
        let clash =
            |one: &str, other: &str| sockets(one).in_the_way(other.parse().unwrap()).is_some();
        assert!(clash("0.0.0.0:9869", "127.0.0.1:9869"));
        assert!(clash("127.0.0.1:9869", "[::]:9869"));
        assert!(clash("[::]:9869", "0.0.0.0:9869"));
        assert!(clash("[::ffff:127.0.0.1]:9869", "127.0.0.1:9869"));
        assert!(!clash("127.0.0.1:9869", "192.168.1.11:9869"));
        assert!(!clash("0.0.0.0:9869", "[fd00::1]:9869"));
        assert!(!clash("[::]:9868", "[::]:9869"));
    }
}
