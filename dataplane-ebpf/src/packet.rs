//! The packet: the only file with raw packet pointers.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_set_hash, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_load_bytes,
    bpf_skb_pull_data,
};
use aya_ebpf::programs::TcContext;
use dataplane_core::abi::Mac;
use dataplane_core::flow::flow_hash;
use dataplane_core::outer;
use dataplane_core::packet::{Bytes, ETH_LEN, Family, Headers, IPV6_LEN};
use dataplane_core::rewrite::{SPENT_HOP_IPV6, spend_hop_ipv4};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to this interface.
const PACKET_HOST: u32 = 0;
/// `PACKET_OTHERHOST`: to another MAC.
const PACKET_OTHERHOST: u32 = 3;

/// The bits of a tag that name the VLAN.
const VLAN_VID: u32 = 0x0fff;

/// Bytes that every header access stays within: Ethernet and the longest fixed IP header.
const HEAD_LEN: u32 = ETH_LEN + IPV6_LEN;

/// A packet at a TC hook, from its Ethernet header.
pub(crate) struct Packet {
    skb: *mut __sk_buff,
}

impl Packet {
    /// The packet of a program's context, with its headers in the directly readable part.
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        let packet = Self { skb: ctx.skb.skb };
        let want = packet.length().min(HEAD_LEN);
        if packet.data_end().wrapping_sub(packet.data()) < want as usize {
            // SAFETY: the context is the one the kernel passed; no packet pointer is held.
            unsafe { bpf_skb_pull_data(packet.skb, want) };
        }
        packet
    }

    pub(crate) fn skb(&self) -> *mut __sk_buff {
        self.skb
    }

    /// Interface that runs the program.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        unsafe { (*self.skb).ifindex }
    }

    /// Payload bytes per segment of an aggregate; 0 for a packet that goes out as it is.
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).gso_size }
    }

    /// The hash of the packet's flow: for TCP that of its socket, which changes where TCP looks for another path. What
    /// is found here the kernel has from now on, for queues.
    ///
    /// A packet that the node's stack forwards from another interface may bring the hash of that card, which can be of
    /// the addresses alone (`PKT_HASH_TYPE_L3`): it is not taken.
    #[inline(always)]
    pub(crate) fn flow_hash(&self, headers: &Headers) -> u32 {
        // SAFETY: as in `ifindex`; no packet pointer is held over the helper.
        unsafe {
            let from = (*self.skb).ingress_ifindex;
            let known = (*self.skb).hash;
            if known != 0 && (from == 0 || from == (*self.skb).ifindex) {
                return known;
            }
            let hash = flow_hash(self, headers);
            bpf_set_hash(self.skb, hash);
            hash
        }
    }

    /// Addressed to this interface's MAC, in no VLAN; a tag that gives a priority only is no VLAN, and the
    /// stack takes it off (IEEE 802.1Q, VID 0).
    #[inline(always)]
    pub(crate) fn ordinary(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).pkt_type == PACKET_HOST && (*self.skb).vlan_tci & VLAN_VID == 0 }
    }

    /// Carries a VLAN tag, which the kernel keeps beside the packet and puts back on any device it
    /// leaves by: its sender would choose a VLAN of that network.
    #[inline(always)]
    pub(crate) fn tagged(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    /// Sent to a multicast or broadcast MAC.
    #[inline(always)]
    pub(crate) fn to_many(&self) -> bool {
        // SAFETY: as in `ifindex`.
        let kind = unsafe { (*self.skb).pkt_type };
        kind != PACKET_HOST && kind != PACKET_OTHERHOST
    }

    /// Makes the packet what an ordinary arrival would be: `bpf_redirect_peer` keeps type and mark.
    #[inline(always)]
    pub(crate) fn make_ordinary(&self) {
        // SAFETY: as in `ifindex`; no packet pointer is held over the helper.
        unsafe {
            if (*self.skb).pkt_type != PACKET_HOST {
                bpf_skb_change_type(self.skb, PACKET_HOST);
            }
        }
        self.clear_mark();
    }

    /// Takes off the mark that the sender set, which would mean something else to the receiver.
    #[inline(always)]
    pub(crate) fn clear_mark(&self) {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).mark = 0 };
    }

    /// Writes both MACs.
    #[inline(always)]
    pub(crate) fn set_macs(&self, destination: Mac, source: Mac) {
        if let Some(at) = self.pointer::<12>(0) {
            // SAFETY: `pointer` checked that 12 bytes are there; Mac has alignment 2, as an Ethernet
            // header has in the kernel, and the writes are unaligned anyway.
            unsafe {
                at.cast::<Mac>().write_unaligned(destination);
                at.add(6).cast::<Mac>().write_unaligned(source);
            }
        }
    }

    /// Writes the destination MAC.
    #[inline(always)]
    pub(crate) fn set_destination_mac(&self, mac: Mac) {
        if let Some(at) = self.pointer::<6>(0) {
            // SAFETY: `pointer` checked that 6 bytes are there.
            unsafe { at.cast::<Mac>().write_unaligned(mac) };
        }
    }

    /// Lowers the TTL or hop limit by one. It was above 1.
    #[inline(always)]
    pub(crate) fn spend_hop(&self, headers: &Headers) {
        match headers.family {
            Family::V4 => {
                let Some(at) = self.pointer::<12>(ETH_LEN) else { return };
                // SAFETY: `pointer` checked that 12 bytes are there, bytes 8, 10 and 11 among them.
                unsafe {
                    let (ttl, checksum) =
                        spend_hop_ipv4(at.add(8).read(), [at.add(10).read(), at.add(11).read()]);
                    at.add(8).write(ttl);
                    at.add(10).cast::<[u8; 2]>().write_unaligned(checksum);
                }
            }
            // Nothing in the header makes up for the change, so a checksum that the network card took over
            // the whole packet must follow it; where there is none, the helper does nothing.
            Family::V6 => {
                let Some(at) = self.pointer::<8>(ETH_LEN) else { return };
                // SAFETY: `pointer` checked that 8 bytes are there, and is not used after the helper; the
                // context is valid.
                unsafe {
                    at.add(7).write(headers.ttl.wrapping_sub(1));
                    bpf_csum_update(self.skb, SPENT_HOP_IPV6);
                }
            }
        }
    }

    /// Writes the headers of a tunnel into the room that was made for them behind the first Ethernet header, and over
    /// that one. A checksum that the network card took over the whole packet follows.
    #[inline(always)]
    pub(crate) fn put_outer(&self, words: &[u64; 8]) {
        if let Some(at) = self.pointer::<64>(0) {
            // SAFETY: `pointer` checked that 64 bytes are there, and is not used after the helper; the context is
            // valid.
            unsafe {
                at.cast::<[u64; 8]>().write_unaligned(*words);
                bpf_csum_update(self.skb, outer::sum(words));
            }
        }
    }

    /// The packet as a buffer of exactly `N` bytes, to be written anew; none without memory for it.
    #[inline(always)]
    pub(crate) fn overwrite<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        // SAFETY: the context is valid, and no packet pointer is held over the helpers.
        unsafe {
            if self.length() != N as u32 && bpf_skb_change_tail(self.skb, N as u32, 0) != 0 {
                return None;
            }
            bpf_skb_pull_data(self.skb, N as u32);
        }
        let at = self.pointer::<N>(0)?;
        // SAFETY: `pointer` checked that N bytes are there; they are this packet's alone, and the borrow
        // of `self` keeps every helper that moves them away.
        Some(unsafe { &mut *at.cast::<[u8; N]>() })
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).data_end as usize }
    }

    /// A pointer to `N` bytes at `offset`, checked against the end.
    #[inline(always)]
    fn pointer<const N: usize>(&self, offset: u32) -> Option<*mut u8> {
        let start = self.data().wrapping_add(offset as usize);
        (start.wrapping_add(N) <= self.data_end()).then_some(start as *mut u8)
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn head<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = self.pointer::<N>(offset)?;
        // SAFETY: `pointer` checked that N bytes are there; a byte array has alignment 1.
        Some(unsafe { at.cast::<[u8; N]>().read() })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = self.data().wrapping_add(offset as usize);
        if start.wrapping_add(4 * N) > self.data_end() {
            return None;
        }
        // SAFETY: 4 * N bytes are there, as was just checked; the read asks for no alignment.
        Some(unsafe { (start as *const [u32; N]).read_unaligned() })
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: `bytes` has N bytes, and N is above 0 wherever this is used (the verifier of every
        // kernel since 4.5 refuses an empty read).
        let failed = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) != 0
        };
        if failed { None } else { Some(bytes) }
    }
}
