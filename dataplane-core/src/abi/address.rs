//! IP and MAC addresses as they lie in maps and packets.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address in its mapped form `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// 16 bytes in network order. Bytes and not words, so that `bpftool map dump` shows what a person can
/// read; aligned to 4, so that the programs compare and copy words.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Addr {
    /// The address, in network order.
    pub bytes: [u8; 16],
}

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 4);

/// Leading bits that an IPv4 prefix has more than its length says, in the mapped form.
pub const IPV4_PREFIX_OFFSET: u32 = 96;

impl Addr {
    /// No address: `::`.
    pub const UNSPECIFIED: Self = Self { bytes: [0; 16] };

    /// The standard library's form.
    pub fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.bytes).to_canonical()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        ip.to_ipv6_mapped().into()
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        Self { bytes: ip.octets() }
    }
}

/// An Ethernet address, in the order of the wire.
#[repr(C, align(2))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mac {
    /// The six octets.
    pub octets: [u8; 6],
}

const _: () = assert!(size_of::<Mac>() == 6 && align_of::<Mac>() == 2);

impl Mac {
    /// The address of these six octets.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self { octets }
    }
}
