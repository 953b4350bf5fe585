//! The programs that a program is compared with: an empty one, one that gives packets tunnel metadata first, and two
//! that do nothing but ask the kernel for a route, and for room in front of a packet.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use tests::bpf::{Instruction, instruction, load, program_array};

/// Numbers of helpers (linux/bpf.h).
const SKB_STORE_BYTES: i32 = 9;
const TAIL_CALL: i32 = 12;
const SET_TUNNEL_KEY: i32 = 21;
const SKB_ADJUST_ROOM: i32 = 50;
const FIB_LOOKUP: i32 = 69;

/// `bpf_tunnel_key` (linux/bpf.h): its size, and where the fields are that are set.
const KEY_LEN: i16 = 44;
const REMOTE_AT: i16 = 4;
const LOCAL_AT: i16 = 28;

/// `bpf_fib_lookup` (linux/bpf.h), likewise.
const FIB_LEN: i16 = 64;
const FIB_IFINDEX_AT: i16 = 8;
const FIB_SOURCE_AT: i16 = 16;
const FIB_DESTINATION_AT: i16 = 32;
/// Address families of the socket interface.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Ethernet, IPv4, UDP and VXLAN headers (RFC 7348), and what the stack takes for them.
const OUTER_LEN: i32 = 50;
const OUTER_ROOM: i16 = 52;
/// `BPF_ADJ_ROOM_MAC` (linux/bpf.h): behind the Ethernet header that is there.
const ROOM_MAC: i32 = 1;
/// `BPF_F_ADJ_ROOM_FIXED_GSO`, `_ENCAP_L3_IPV4`, `_ENCAP_L4_UDP` and `_ENCAP_L2_ETH`; 14 bytes of inner Ethernet.
const LAYERS: [i32; 2] = [0b101_0011, 14 << 24];
/// `BPF_F_RECOMPUTE_CSUM`.
const RECOMPUTE_CSUM: i32 = 1;

/// A program that does nothing.
pub(super) struct Empty(OwnedFd);

impl Empty {
    /// Loads it.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn new() -> Result<Self> {
        let program = load(&[
            instruction(0xb7, 0, 0, 0, 0), // r0 = 0
            instruction(0x95, 0, 0, 0, 0), // exit
        ]);
        Ok(Self(program.context("load the empty program")?))
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Programs that make a packet one that arrived through the tunnel, and go on with another program.
pub(super) struct Arrival {
    programs: [OwnedFd; 2],
    _arrays: [OwnedFd; 2],
}

impl Arrival {
    /// Two of them: one goes on with `program`, one with the empty one. The outer packet was sent from the first of
    /// `ends` to the second.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub(super) fn new(
        vni: u32,
        ends: [IpAddr; 2],
        program: BorrowedFd<'_>,
        empty: &Empty,
    ) -> Result<Self> {
        let [IpAddr::V4(sender), IpAddr::V4(receiver)] = ends else {
            bail!("the outer packet has IPv4 addresses");
        };
        let arrays = [program_array(program), program_array(empty.program())];
        let [first, second] = arrays.map(|array| array.context("make an array of programs"));
        let arrays = [first?, second?];
        let load = |array: &OwnedFd| {
            // The kernel keeps one pair of addresses, which a sender calls local and remote and a receiver remote
            // and local.
            load(&instructions(vni, receiver.into(), sender.into(), array))
                .context("load an arrival")
        };
        Ok(Self { programs: [load(&arrays[0])?, load(&arrays[1])?], _arrays: arrays })
    }

    /// That with the program, and that with the empty one.
    pub(super) fn programs(&self) -> [BorrowedFd<'_>; 2] {
        let [program, empty] = &self.programs;
        [program.as_fd(), empty.as_fd()]
    }
}

/// A program that asks for the way from one address to the other, as for a packet that arrives on an interface, and
/// returns what the kernel says: 0 is a neighbour.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn route_look_up(ifindex: u32, from: IpAddr, to: IpAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut words = vec![(0, family), (FIB_IFINDEX_AT, ifindex)];
    for (at, address) in [(FIB_SOURCE_AT, from), (FIB_DESTINATION_AT, to)] {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let (octets, _) = octets.as_chunks::<4>();
        words.extend((at..).step_by(4).zip(octets.iter().map(|word| u32::from_ne_bytes(*word))));
    }
    let mut all = on_the_stack(FIB_LEN, &words);
    all.extend([
        instruction(0xb7, 3, 0, 0, i32::from(FIB_LEN)), // r3 = its size
        instruction(0xb7, 4, 0, 0, 0),                  // r4 = no flags
        instruction(0x85, 0, 0, 0, FIB_LOOKUP),
        instruction(0x95, 0, 0, 0, 0), // exit with its answer
    ]);
    load(&all).context("load the look-up of a route")
}

/// A program that puts the headers of VXLAN over IPv4 in front of a packet, all zero, and returns 0.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn encapsulation() -> Result<OwnedFd> {
    let [low, high] = LAYERS;
    let mut all = vec![
        instruction(0xbf, 6, 1, 0, 0),         // r6 = context
        instruction(0xb7, 2, 0, 0, OUTER_LEN), // r2 = room
        instruction(0xb7, 3, 0, 0, ROOM_MAC),
        instruction(0x18, 4, 0, 0, low), // r4 = the layers,
        instruction(0, 0, 0, 0, high),   // in two halves
        instruction(0x85, 0, 0, 0, SKB_ADJUST_ROOM),
        instruction(0x55, 0, 0, 0, 0), // to the exit where that failed
    ];
    let failed = all.len() - 1;
    all.extend(on_the_stack(OUTER_ROOM, &[]));
    all.extend([
        instruction(0xbf, 3, 2, 0, 0),         // r3 = headers
        instruction(0xbf, 1, 6, 0, 0),         // r1 = context
        instruction(0xb7, 2, 0, 0, 0),         // r2 = offset
        instruction(0xb7, 4, 0, 0, OUTER_LEN), // r4 = length
        instruction(0xb7, 5, 0, 0, RECOMPUTE_CSUM),
        instruction(0x85, 0, 0, 0, SKB_STORE_BYTES),
        instruction(0x95, 0, 0, 0, 0), // exit with its answer
    ]);
    let to_exit = i16::try_from(all.len() - 2 - failed)?;
    all[failed] = instruction(0x55, 0, 0, to_exit, 0);
    load(&all).context("load the encapsulation")
}

/// Makes a structure of words at the end of the stack, zero but for those given, and leaves its address in r2.
fn on_the_stack(length: i16, words: &[(i16, u32)]) -> Vec<Instruction> {
    let zeroes = (0..length).step_by(4).map(|at| (at, 0));
    let store = |(at, value): (i16, u32)| {
        instruction(0x62, 10, 0, at - length, value.cast_signed()) // *(r10 - length + at) = value
    };
    let mut all: Vec<_> = zeroes.chain(words.iter().copied()).map(store).collect();
    all.extend([
        instruction(0xbf, 2, 10, 0, 0),                 // r2 = r10
        instruction(0x07, 2, 0, 0, -i32::from(length)), // r2 -= length
    ]);
    all
}

/// Hands a tunnel key to the kernel, and calls the program of the array.
fn instructions(vni: u32, remote: u32, local: u32, array: &OwnedFd) -> Vec<Instruction> {
    let mut all = vec![instruction(0xbf, 6, 1, 0, 0)]; // r6 = context
    all.extend(on_the_stack(KEY_LEN, &[(0, vni), (REMOTE_AT, remote), (LOCAL_AT, local)]));
    all.extend([
        instruction(0xb7, 3, 0, 0, i32::from(KEY_LEN)), // r3 = its size
        instruction(0xb7, 4, 0, 0, 0),                  // r4 = no flags
        instruction(0x85, 0, 0, 0, SET_TUNNEL_KEY),
        instruction(0xbf, 1, 6, 0, 0),                 // r1 = context
        instruction(0x18, 2, 1, 0, array.as_raw_fd()), // r2 = the array,
        instruction(0, 0, 0, 0, 0),                    // in two halves
        instruction(0xb7, 3, 0, 0, 0),                 // r3 = its first program
        instruction(0x85, 0, 0, 0, TAIL_CALL),
        instruction(0xb7, 0, 0, 0, 2), // where that failed, r0 = drop
        instruction(0x95, 0, 0, 0, 0),
    ]);
    all
}
