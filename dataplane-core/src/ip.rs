//! An IP address while a packet is looked at.

use crate::abi::Addr;

/// The same 16 bytes as an [`Addr`], as two words in network order.
///
/// An array of bytes becomes sixteen registers in the compiler's hands, and every copy sixteen stores.
/// Two words stay two, and what compares them a moment later in a map finds them in the processor's
/// store buffer as it wants them. Maps keep bytes, which people can read. The alignment is 8, because
/// the verifier (as of 6.18) refuses unaligned access to the stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip(pub [u64; 2]);

const _: () =
    assert!(size_of::<Ip>() == size_of::<Addr>() && align_of::<Ip>() >= align_of::<Addr>());

/// First half of the second word of an IPv4-mapped address: `00 00 ff ff` (RFC 4291, 2.5.5.2).
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Ip {
    /// No address: `::`.
    pub const UNSPECIFIED: Self = Self([0; 2]);

    /// The mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn from_ipv4(bytes: [u8; 4]) -> Self {
        Self::from_ipv4_word(u32::from_ne_bytes(bytes))
    }

    /// The mapped form of an IPv4 address that is one word in network order.
    #[inline(always)]
    pub const fn from_ipv4_word(word: u32) -> Self {
        Self([0, join(MAPPED, word)])
    }

    /// The address in four words in network order.
    #[inline(always)]
    pub const fn from_words([a, b, c, d]: [u32; 4]) -> Self {
        Self([join(a, b), join(c, d)])
    }

    /// The address in these bytes, network order.
    #[inline(always)]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self([
            u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        ])
    }

    /// Whether this is the mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.0[0] == 0 && split(self.0[1]).0 == MAPPED
    }

    /// Whether this is `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] | self.0[1] == 0
    }

    /// Whether this is the IPv6 loopback address (`::1`).
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 1_u64.to_be()
    }

    /// Whether this is an IPv6 multicast address (ff00::/8).
    #[inline(always)]
    pub const fn is_ipv6_multicast(&self) -> bool {
        u32::from_be(split(self.0[0]).0) >> 24 == 0xff
    }

    /// Whether this is an IPv6 link-local address (fe80::/10).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        u32::from_be(split(self.0[0]).0) >> 22 == 0xfe80 >> 6
    }

    /// The IPv4 address as one word in network order.
    #[inline(always)]
    pub const fn ipv4_word(&self) -> u32 {
        split(self.0[1]).1
    }

    /// The four words, network order.
    #[inline(always)]
    pub const fn to_words(self) -> [u32; 4] {
        let ((a, b), (c, d)) = (split(self.0[0]), split(self.0[1]));
        [a, b, c, d]
    }

    /// The bytes, network order.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 16] {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
            (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// Two words as they lie one behind the other in memory.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    let (first, second) = (first as u64, second as u64);
    if cfg!(target_endian = "little") { first | (second << 32) } else { (first << 32) | second }
}

/// The words that lie one behind the other.
#[inline(always)]
const fn split(both: u64) -> (u32, u32) {
    let (low, high) = (both as u32, (both >> 32) as u32);
    if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
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
