//! The headers of VXLAN, read back by an independent crate for any values.

use dataplane_core::abi::Mac;
use dataplane_core::outer::{OVERHEAD_IPV4, Outer, sum};
use dataplane_core::packet::Family;
use etherparse::{Ethernet2Header, Ipv4Header, UdpHeader};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_written_is_read(
        macs: [[u8; 6]; 4],
        addresses: [[u8; 4]; 2],
        (traffic_class, identification, flow_hash, port) in any::<(u8, u16, u32, u16)>(),
        length in 36_u32..=65_535,
        vni in 0_u32..1 << 24,
        is_ipv6: bool,
    ) {
        let [to, from, inner_to, inner_from] = macs.map(Mac::new);
        let outer = Outer {
            macs: [to, from],
            addresses: addresses.map(u32::from_ne_bytes),
            traffic_class,
            identification,
            length,
            flow_hash,
            port,
            vni,
            inner_macs: [inner_to, inner_from],
            family: if is_ipv6 { Family::V6 } else { Family::V4 },
        };
        let words = outer.words();
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        prop_assert_eq!(bytes.len(), 14 + OVERHEAD_IPV4 as usize);
        let independent = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes[14..]);
        let folded = sum(&words);
        let folded = (folded & 0xffff) + (folded >> 16);
        let folded = ((folded & 0xffff) + (folded >> 16)) as u16;
        prop_assert_eq!(!folded, independent.ones_complement());

        let (ethernet, rest) = Ethernet2Header::from_slice(&bytes).expect("Ethernet");
        prop_assert_eq!((ethernet.destination, ethernet.source), (macs[0], macs[1]));
        prop_assert_eq!(ethernet.ether_type.0, 0x0800);
        let (ip, rest) = Ipv4Header::from_slice(rest).expect("IPv4");
        prop_assert_eq!([ip.source, ip.destination], addresses);
        prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        prop_assert_eq!(ip.dscp.value() << 2 | ip.ecn.value(), traffic_class);
        prop_assert_eq!((ip.identification, u32::from(ip.total_len)), (identification, length));
        prop_assert_eq!((ip.time_to_live, ip.protocol.0), (64, 17));
        prop_assert!(!ip.dont_fragment && !ip.more_fragments);
        let (udp, rest) = UdpHeader::from_slice(rest).expect("UDP");
        prop_assert_eq!((udp.destination_port, udp.checksum), (port, 0));
        prop_assert_eq!(u32::from(udp.length), length - 20);
        prop_assert!(udp.source_port >= 49_152);
        let [_, a, b, c] = vni.to_be_bytes();
        prop_assert_eq!(&rest[..8], [8, 0, 0, 0, a, b, c, 0]);
        let (inner, _) = Ethernet2Header::from_slice(&rest[8..]).expect("Ethernet");
        prop_assert_eq!((inner.destination, inner.source), (macs[2], macs[3]));
        prop_assert_eq!(inner.ether_type.0, if is_ipv6 { 0x86dd } else { 0x0800 });
    }
}
