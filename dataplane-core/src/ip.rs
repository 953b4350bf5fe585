//! An IP address while a packet is looked at.

use crate::abi::Addr;

/// The same 16 bytes as an [`Addr`], as words in network order.
///
/// An array of bytes becomes sixteen registers in the compiler's hands, and every copy sixteen stores;
/// four words stay four. Maps keep bytes, which people can read. Aligned to 8, because the compiler copies
/// pairs of words and the verifier (as of 6.18) refuses unaligned access to the stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip(pub [u32; 4]);

const _: () =
    assert!(size_of::<Ip>() == size_of::<Addr>() && align_of::<Ip>() >= align_of::<Addr>());

/// Third word of an IPv4-mapped address: `00 00 ff ff` (RFC 4291, 2.5.5.2).
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Ip {
    /// No address: `::`.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// The mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn from_ipv4(bytes: [u8; 4]) -> Self {
        Self::from_ipv4_word(u32::from_ne_bytes(bytes))
    }

    /// The mapped form of an IPv4 address that is one word in network order.
    #[inline(always)]
    pub const fn from_ipv4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// The address in these bytes, network order.
    #[inline(always)]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// Whether this is the mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.0[0] | self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Whether this is `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// The first byte of an IPv6 address.
    #[inline(always)]
    pub const fn first_byte(&self) -> u8 {
        self.0[0].to_ne_bytes()[0]
    }

    /// Whether this is an IPv6 link-local address (fe80::/10).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        u32::from_be(self.0[0]) & 0xffc0_0000 == 0xfe80_0000
    }

    /// The IPv4 address as one word in network order.
    #[inline(always)]
    pub const fn ipv4_word(&self) -> u32 {
        self.0[3]
    }

    /// The bytes, network order.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.to_ne_bytes(), b.to_ne_bytes());
        let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.to_ne_bytes(), d.to_ne_bytes());
        [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
    }
}

impl From<&Addr> for Ip {
    #[inline(always)]
    fn from(addr: &Addr) -> Self {
        Self::from_bytes(addr.bytes)
    }
}

impl From<Ip> for Addr {
    #[inline(always)]
    fn from(ip: Ip) -> Self {
        Self { bytes: ip.to_bytes() }
    }
}
