//! The same random packets through `dataplane-core` and the loaded programs must have the same fate.

use dataplane_core::abi::names;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use tests::packets::{arp_request, solicitation, tcp, to_mac, too_big, udp};

use super::fixture::Fixture;

const V4: [&str; 12] = [
    "10.244.1.1",
    "10.244.1.2",
    "10.244.1.3",
    "10.244.1.99",
    "10.244.2.9",
    "10.244.3.9",
    "10.244.4.9",
    "10.244.77.1",
    "192.168.1.11",
    "192.168.1.12",
    "203.0.113.10",
    "224.0.0.1",
];
const V6: [&str; 9] = [
    "fd00:10:244:1::1",
    "fd00:10:244:1::2",
    "fd00:10:244:1::3",
    "fd00:10:244:1::99",
    "fd00:10:244:2::9",
    "fd00:10:244:3::9",
    "fd00:10:244:9::9",
    "2001:db8::1",
    "ff02::1",
];
const PROGRAMS: [&str; 4] = [
    names::PROGRAM_FROM_POD,
    names::PROGRAM_TO_POD,
    names::PROGRAM_FROM_HOST,
    names::PROGRAM_FROM_NET,
];

/// A sensible packet between two of the interesting addresses.
fn sensible() -> impl Strategy<Value = Vec<u8>> {
    let pair = prop_oneof![(select(&V4[..]), select(&V4[..])), (select(&V6[..]), select(&V6[..])),];
    (pair, any::<u8>(), select(vec![53u16, 8472]), select(vec![0usize, 30, 1472, 1473]), 0..5u8)
        .prop_map(|((source, destination), ttl, port, size, kind)| match kind {
            0 => tcp(source, destination, ttl),
            1 => too_big(source, destination, &tcp(destination, source, 9)),
            2 if source.contains(':') => solicitation(source, "fe80::1"),
            2 => arp_request([10, 244, 1, ttl], [169, 254, 1, 1]),
            _ => udp(source, destination, ttl % 4, port, size),
        })
}

/// The same with some bytes of the headers changed and perhaps cut off.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((0..60usize, any::<u8>()), 0..3);
    (sensible(), changes, proptest::option::weighted(0.1, any::<Index>())).prop_map(
        |(mut packet, changes, cut)| {
            for (at, byte) in changes {
                if let Some(old) = packet.get_mut(at) {
                    *old = byte;
                }
            }
            if let Some(cut) = cut {
                packet.truncate(15 + cut.index(packet.len() - 14));
            }
            packet
        },
    )
}

#[test]
fn core_and_programs_agree() {
    agree(Fixture::new());
}

#[test]
fn they_agree_where_addresses_have_no_place_of_their_own() {
    let mut fixture = Fixture::new();
    fixture.displace(&["10.244.1.1", "10.244.1.3", "fd00:10:244:1::1", "fd00:10:244:1::2"]);
    agree(fixture);
}

fn agree(fixture: Fixture) {
    let fixture = std::cell::RefCell::new(fixture);
    let config = Config { cases: 5_000, failure_persistence: None, ..Config::default() };
    let input = (select(&PROGRAMS[..]), mangled(), any::<bool>(), 0..2usize);
    let mut seen = std::collections::BTreeMap::new();
    let counts = std::cell::RefCell::new(&mut seen);
    TestRunner::new(config)
        .run(&input, |(program, packet, to_uplink, pod)| {
            // A test run refuses IP packets without their fixed header (kernel 6.18, EINVAL).
            let least = match packet[12..14] {
                [0x86, 0xdd] => 54,
                [8, 0] => 34,
                _ => 15,
            };
            prop_assume!(packet.len() >= least);
            let mut fixture = fixture.borrow_mut();
            let (ifindex, packet) = match program {
                names::PROGRAM_FROM_HOST => (fixture.host.ifindex, packet),
                names::PROGRAM_FROM_NET if to_uplink => {
                    (fixture.uplink.ifindex, to_mac(packet, fixture.uplink.mac.octets))
                }
                names::PROGRAM_FROM_NET => (fixture.uplink.ifindex, packet),
                _ => (fixture.pods[pod].ifindex, packet),
            };
            let expected = fixture.expected(program, ifindex, &packet);
            let outcome = fixture.run(program, ifindex, &packet);
            prop_assert_eq!(
                outcome.counted,
                [(expected, 1)].into(),
                "{} on {:02x?}",
                program,
                packet
            );
            *counts.borrow_mut().entry(expected).or_insert(0u32) += 1;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(seen.len() >= 20, "too few kinds of fate to prove anything: {seen:?}");
}
