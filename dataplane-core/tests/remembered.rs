//! Where what is remembered lies, and for how long it is of use.

use std::collections::BTreeSet;

use dataplane_core::abi::names::{HOPS, KNOWN_NODES};
use dataplane_core::abi::{KnownNode, Mac, NextHop, NodeEntry};
use dataplane_core::ip::Ip;

/// Pod `pod` of node `node`, in the networks that clusters give their nodes.
const PODS: [fn(u8, u8) -> Ip; 4] = [
    |node, pod| Ip::from_ipv4([10, 244, node, pod]),
    |node, pod| Ip::from_bytes([0xfd, 0, 0, 0x10, 2, 0x44, 0, node, 0, 0, 0, 0, 0, 0, 0, pod]),
    |node, pod| Ip::from_bytes([0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, node, 0, 0, 0, pod]),
    |node, pod| Ip::from_bytes([0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, node, 0, pod]),
];

#[test]
fn what_is_known_is_of_one_address_and_one_version() {
    let (here, there) = (PODS[0](1, 2), PODS[0](1, 3));
    let node = NodeEntry { node: here.into(), kind: NodeEntry::DIRECT, mtu: 1500 };
    let mut known = KnownNode { address: Ip::UNSPECIFIED, maps_version: 0, has_node: 0, node };
    assert!(!known.is_of(&here, 7));
    known.set(&here, 7, Some(&node));
    assert!(known.is_of(&here, 7) && !known.is_of(&there, 7) && !known.is_of(&here, 8));
    assert_eq!(known.node(), Some(&node));
    known.set(&there, 8, None);
    assert!(known.is_of(&there, 8));
    assert_eq!(known.node(), None);
}

#[test]
fn pods_of_other_nodes_have_places_of_their_own() {
    for (kind, pod) in PODS.iter().enumerate() {
        for vary in [|number| (number, 2), |number| (2, number)] {
            let places: BTreeSet<usize> = (2..=60)
                .map(vary)
                .map(|(node, number)| KnownNode::slot(&pod(node, number)))
                .collect();
            assert!(places.iter().all(|place| *place < KNOWN_NODES));
            assert!(places.len() > 48, "networks {kind}: 59 pods share {} places", places.len());
        }
    }
}

/// Asked for at tick 1000, of an interface with an MTU of 1500.
fn hop(node: Ip) -> NextHop {
    NextHop {
        node,
        asked: 1000,
        ifindex: 3,
        mtu: 1500,
        destination_mac: Mac::new([2; 6]),
        source_mac: Mac::new([4; 6]),
        reserved: 0,
    }
}

#[test]
fn a_next_hop_is_sent_to_in_the_tick_it_was_asked_for_and_the_next() {
    let node = Ip::from_ipv4([192, 0, 2, 1]);
    let known = [999, 1000, 1001, 1002, 1_000_000].map(|now| hop(node).leads_to(&node, now));
    assert_eq!(known, [false, true, true, false, false]);
    assert!(!hop(node).leads_to(&Ip::from_ipv4([192, 0, 2, 2]), 1000), "another node");
}

#[test]
fn a_packet_that_the_interface_does_not_take_is_none_of_a_next_hop() {
    let hop = hop(Ip::from_ipv4([192, 0, 2, 1]));
    assert!(hop.takes(1514, 0));
    assert!(!hop.takes(1515, 0));
    assert!(hop.takes(65_000, 1448), "the interface gets segments");
}

#[test]
fn next_hops_of_neighbours_have_places_of_their_own() {
    let v4 = (1..=60).map(|node| Ip::from_ipv4([192, 0, 2, node]));
    let v6 = (1..=60)
        .map(|node| Ip::from_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, node]));
    let networks = (1..=60)
        .map(|node| Ip::from_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, node, 0, 0, 0, 0, 0, 0, 0, 1]));
    for nodes in [v4.collect::<Vec<_>>(), v6.collect(), networks.collect()] {
        let slots: BTreeSet<usize> = nodes.iter().map(NextHop::slot).collect();
        assert!(slots.iter().all(|slot| *slot < HOPS));
        assert!(slots.len() > 45, "60 nodes share {} places", slots.len());
    }
}
