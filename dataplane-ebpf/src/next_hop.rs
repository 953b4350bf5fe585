//! The way to a node as the kernel's routing table has it.

use core::mem::size_of;

use aya_ebpf::bindings::{bpf_fib_lookup as FibParams, bpf_redir_neigh};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_redirect_neigh};
use dataplane_core::abi::Mac;
use dataplane_core::decide::family_of;
use dataplane_core::ip::Ip;
use dataplane_core::packet::Family;

use crate::stack::{Aligned, Shifted, put_address};
use crate::verdict::Way;

/// Address families of the socket interface.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Room for a look-up.
#[inline(always)]
pub(crate) fn blank() -> Aligned<FibParams> {
    // SAFETY: all-zero is a valid value of this plain C struct.
    unsafe { Aligned::zeroed() }
}

/// Asks for the next hop to a node, as for a packet of this node's registered address that arrives on
/// `podwire0`: one of the constants `BPF_FIB_LKUP_RET_*`. The agent judges the way by the same source, and
/// rules may choose a table by it.
///
/// `fib` is a blank, and afterwards has the interface, and the MACs where the neighbour is known.
#[inline(always)]
pub(crate) fn look_up(way: &Way<'_>, fib: &mut FibParams, node: &Ip) -> u32 {
    fib.ifindex = way.config.host_ifindex;
    set_ends(fib, way, node);
    // SAFETY: `fib` is initialised and its size is given.
    let found = unsafe {
        bpf_fib_lookup(way.packet.skb().cast(), &raw mut *fib, size_of::<FibParams>() as i32, 0)
    };
    found as u32
}

/// Hands the packet to the kernel's neighbour resolution, with the next hop that the look-up found.
#[inline(always)]
pub(crate) fn to_neighbour(fib: &FibParams) -> i64 {
    // SAFETY: all-zero is a valid value of this plain C struct; of the unions the member is read that
    // `family` names, as `bpf_fib_lookup` leaves them.
    unsafe {
        let mut aligned = Shifted::<bpf_redir_neigh>::zeroed();
        let hop = &mut aligned.value;
        // Volatile: merged with the address behind it, it would be an unaligned store (see `stack.rs`).
        (&raw mut hop.nh_family).write_volatile(u32::from(fib.family));
        if fib.family == AF_INET {
            hop.__bindgen_anon_1.ipv4_nh = fib.__bindgen_anon_4.ipv4_dst;
        } else {
            hop.__bindgen_anon_1.ipv6_nh = fib.__bindgen_anon_4.ipv6_dst;
        }
        bpf_redirect_neigh(fib.ifindex, &raw mut *hop, size_of::<bpf_redir_neigh>() as i32, 0)
    }
}

#[inline(always)]
fn set_ends(fib: &mut FibParams, way: &Way<'_>, node: &Ip) {
    match family_of(node) {
        Family::V4 => {
            fib.family = AF_INET;
            fib.__bindgen_anon_3.ipv4_src = Ip::from(&way.config.node_ipv4).ipv4_word();
            fib.__bindgen_anon_4.ipv4_dst = node.ipv4_word();
        }
        Family::V6 => {
            fib.family = AF_INET6;
            // SAFETY: in an `Aligned` structure the addresses lie at multiples of 8 (offsets 16 and 32).
            unsafe {
                put_address(&raw mut fib.__bindgen_anon_3, &Ip::from(&way.config.node_ipv6));
                put_address(&raw mut fib.__bindgen_anon_4, node);
            }
        }
    }
}

/// A MAC out of the look-up's result, which has it at an even address only: read as halfwords, because
/// the compiler would read a word and the verifier (as of 6.18) refuses unaligned access to the stack.
#[inline(always)]
pub(crate) fn mac(octets: &[u8; 6]) -> Mac {
    let halves = octets.as_ptr().cast::<u16>();
    // SAFETY: six bytes are three halfwords, at an even offset of a structure aligned to 8.
    let [a, b, c] = unsafe {
        [halves.read_volatile(), halves.add(1).read_volatile(), halves.add(2).read_volatile()]
    };
    let ([a0, a1], [b0, b1], [c0, c1]) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
    Mac::new([a0, a1, b0, b1, c0, c1])
}
