//! The object itself: what its maps look like from outside, and how large its programs are.

use std::process::Command;

use aya::maps::Map;
use dataplane_core::abi::{Config, NodeEntry, PodEntry, Stats, names};

use super::fixture::{Fixture, ip_of, object};

#[test]
fn maps_are_what_core_says() {
    let fixture = Fixture::new();
    let size = |bytes: usize| u32::try_from(bytes).expect("small");
    let rows = [
        (names::MAP_PODS, 16, size(size_of::<PodEntry>()), names::PODS_MAX),
        (names::MAP_NODES, 20, size(size_of::<NodeEntry>()), names::NODES_MAX),
        (names::MAP_CONFIG, 4, size(size_of::<Config>()), 1),
        (names::MAP_STATS, 4, size(size_of::<Stats>()), 128),
        (names::MAP_EVENTS, 0, 0, names::EVENTS_BYTES),
    ];
    for (name, key, value, entries) in rows {
        let map = fixture.ebpf().map(name).expect("a map");
        let (Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)) = map
        else {
            panic!("{name} is {map:?}");
        };
        let info = data.info().expect("info");
        assert_eq!(info.key_size(), key, "{name}: key");
        assert_eq!(info.value_size(), value, "{name}: value");
        assert_eq!(info.max_entries(), size(entries), "{name}: entries");
        assert_eq!(info.name_as_str(), Some(name));
    }
}

#[test]
fn stock_bpftool_prints_field_names() {
    let fixture = Fixture::new();
    let Some(Map::HashMap(data)) = fixture.ebpf().map(names::MAP_PODS) else { panic!("no map") };
    let id = data.info().expect("info").id().to_string();
    let output = Command::new("bpftool")
        .args(["-j", "map", "dump", "id", &id])
        .output()
        .expect("bpftool runs");
    let dump: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let formatted = &dump[0]["formatted"];
    assert!(formatted["key"]["bytes"].is_array(), "the key has no field names: {dump}");
    for field in ["ifindex", "kind", "mac", "gateway_mac", "generation"] {
        assert!(!formatted["value"][field].is_null(), "no field {field}: {formatted}");
    }
}

#[test]
fn stock_libbpf_can_open_the_object() {
    let directory = format!("/sys/fs/bpf/pwtest-{}", std::process::id());
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("stock-libbpf.o");
    std::fs::write(&file, object()).expect("a copy of the object");
    let output = Command::new("bpftool")
        .args(["prog", "loadall", &file.display().to_string(), &directory, "type", "classifier"])
        .output()
        .expect("bpftool runs");
    let _ = std::fs::remove_dir_all(&directory);
    let _ = std::fs::remove_file(&file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn drops_are_reported_with_both_addresses() {
    use aya::maps::RingBuf;
    use dataplane_core::abi::{DropReason, Event};
    let mut fixture = Fixture::new();
    let packet = tests::packets::tcp("10.244.1.3", "10.244.2.9", 64);
    fixture.run(names::PROGRAM_FROM_POD, fixture.pods[0].ifindex, &packet);
    let ring = fixture.ebpf().map(names::MAP_EVENTS).expect("map");
    let Map::RingBuf(data) = ring else { panic!("not a ring") };
    let copy =
        aya::maps::MapData::from_id(data.info().expect("info").id()).expect("the ring again");
    let mut ring = RingBuf::try_from(Map::RingBuf(copy)).expect("a ring");
    let record = ring.next().expect("a record");
    assert_eq!(record.len(), size_of::<Event>());
    // SAFETY: the record has the size of an Event, and every bit pattern is one.
    let event = unsafe { record.as_ptr().cast::<Event>().read_unaligned() };
    assert_eq!(event.reason, DropReason::SpoofedSource as u32);
    assert_eq!(event.ifindex, fixture.pods[0].ifindex);
    assert_eq!(dataplane_core::ip::Ip::from(&event.source), ip_of("10.244.1.3"));
    assert_eq!(dataplane_core::ip::Ip::from(&event.destination), ip_of("10.244.2.9"));
    assert_eq!((event.protocol, event.program), (6, 0));
    assert_eq!(event.length as usize, packet.len());
}
