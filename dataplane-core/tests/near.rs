//! Places of addresses in `pw_near`.

use std::collections::BTreeSet;

use dataplane_core::abi::names::NEAR;
use dataplane_core::ip::Ip;
use dataplane_core::near::place;

fn v4(network: u8, number: u32) -> Ip {
    Ip::from_ipv4_word((u32::from_be_bytes([10, network, 0, 0]) + number).to_be())
}

fn v6(network: u16, number: u32) -> Ip {
    let number = number.to_be_bytes();
    let mut bytes = [0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[6..8].copy_from_slice(&network.to_be_bytes());
    bytes[12..].copy_from_slice(&number);
    Ip::from_bytes(bytes)
}

#[test]
fn pods_with_an_address_of_each_family_never_meet() {
    for network in 0..=255 {
        // The second half of a network of 16 bits, too.
        for first in [0, 8192, 57_344] {
            let both = (0..8192)
                .flat_map(|pod| [v4(network, first + pod), v6(u16::from(network) << 3, pod)]);
            let places: BTreeSet<usize> = both.map(|ip| place(&ip)).collect();
            assert_eq!(places.len(), NEAR, "network {network} from {first}");
        }
    }
}

#[test]
fn one_network_has_all_places() {
    let alone: BTreeSet<usize> = (0..16_384).map(|pod| place(&v6(7, pod))).collect();
    assert_eq!(alone.len(), NEAR);
}

#[test]
fn networks_of_one_family_lie_apart() {
    // Of 256 addresses each: the first is where the whole network is.
    let blocks =
        |places: &mut dyn Iterator<Item = usize>| places.map(|at| at >> 8).collect::<BTreeSet<_>>();
    let of_v4 = blocks(&mut (0..32).map(|network| place(&v4(network, 0))));
    let of_v6 = blocks(&mut (0..32).map(|network| place(&v6(network, 0))));
    // 32 of 32 thrown at random into 32 would be in 20 of them.
    assert!(of_v4.len() >= 18, "{of_v4:?}");
    assert!(of_v6.len() >= 18, "{of_v6:?}");
    assert!(of_v4.is_disjoint(&of_v6));
}
