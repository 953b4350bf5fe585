//! `pw_near` beside `pw_pods`.

use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_core::abi::Near;
use dataplane_core::abi::names::{MAP_NEAR, MAP_PODS};
use dataplane_core::ip::Ip;
use dataplane_core::near::place;

use super::*;

const ONE: [u8; 4] = [10, 244, 1, 2];

fn near(bpffs: &Path) -> Array<MapData, Near> {
    let data = MapData::from_pin(bpffs.join("maps").join(MAP_NEAR)).unwrap();
    Map::Array(data).try_into().unwrap()
}

fn place_of(address: Addr) -> u32 {
    place(&Ip::from(&address)) as u32
}

/// Whose place it is.
fn owner(bpffs: &Path, of: [u8; 4]) -> Addr {
    near(bpffs).get(&place_of(of.map_to()), 0).unwrap().address
}

fn all_are_near(bpffs: &Path) -> bool {
    let data = MapData::from_pin(bpffs.join("maps").join(MAP_CONFIG)).unwrap();
    let config: Array<_, Config> = Map::Array(data).try_into().unwrap();
    config.get(&0, 0).unwrap().flags & Config::ALL_NEAR != 0
}

/// Another address with the place of [`ONE`].
fn rival() -> [u8; 4] {
    let mut all = (0..=255).flat_map(|third| (0..=255).map(move |fourth| [10, 9, third, fourth]));
    all.find(|other| place_of(other.map_to()) == place_of(ONE.map_to())).unwrap()
}

fn put(address: [u8; 4]) -> Action {
    Action::PutPod { address: address.map_to(), entry: pod(1) }
}

fn remove(address: [u8; 4]) -> Action {
    Action::RemovePod { address: address.map_to(), generation: 1 }
}

#[test]
fn of_two_addresses_with_one_place_the_second_gets_it_when_the_first_goes() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        assert_eq!(owner(bpffs, ONE), ONE.map_to());
        assert!(all_are_near(bpffs));
        apply(&mut kernel, &[put(rival())]).await;
        assert_eq!(owner(bpffs, ONE), ONE.map_to());
        assert!(!all_are_near(bpffs), "the second is in pw_pods alone");
        // Neither a look nor another configuration changes that.
        assert_eq!(observe(&mut kernel).await.pods.len(), 2);
        apply(&mut kernel, &[Action::PutConfig(config())]).await;
        assert!(!all_are_near(bpffs));
        apply(&mut kernel, &[remove(ONE)]).await;
        assert_eq!(owner(bpffs, ONE), Addr::UNSPECIFIED);
        assert_eq!(observe(&mut kernel).await.pods.len(), 1);
        assert_eq!(owner(bpffs, ONE), rival().map_to());
        assert!(all_are_near(bpffs));
    });
}

#[test]
fn the_second_that_goes_leaves_the_first_its_place() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        apply(&mut kernel, &[put(rival()), remove(rival())]).await;
        assert_eq!(owner(bpffs, ONE), ONE.map_to());
        assert!(all_are_near(bpffs));
    });
}

#[test]
fn what_somebody_else_removed_keeps_no_place() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let data = MapData::from_pin(bpffs.join("maps").join(MAP_PODS)).unwrap();
        let mut pods: HashMap<_, Addr, PodEntry> = Map::HashMap(data).try_into().unwrap();
        pods.remove(&ONE.map_to()).unwrap();
        apply(&mut kernel, &[remove(ONE)]).await;
        assert_eq!(near(bpffs).get(&place_of(ONE.map_to()), 0).unwrap().entry.kind, 0);
        assert_eq!(owner(bpffs, ONE), Addr::UNSPECIFIED);
    });
}

#[test]
fn places_are_put_right_by_each_look_and_each_start() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let at = place_of(ONE.map_to());
        let right = near(bpffs).get(&at, 0).unwrap();
        let wrong = Near { entry: PodEntry { ifindex: 99, ..right.entry }, ..right };
        near(bpffs).set(at, wrong, 0).unwrap();
        assert_eq!(observe(&mut kernel).await, wanted());
        assert_eq!(near(bpffs).get(&at, 0).unwrap(), right);
        drop(kernel);
        // As an agent leaves them that ends between its two writes: one lacks its place, another kept it.
        let gone = Near { address: [10, 244, 1, 77].map_to(), entry: pod(1) };
        near(bpffs).set(at, Near { address: Addr::UNSPECIFIED, ..right }, 0).unwrap();
        near(bpffs).set(place_of(gone.address), gone, 0).unwrap();
        // And as one leaves them that had other places.
        let elsewhere = place_of([10, 244, 1, 78].map_to());
        near(bpffs).set(elsewhere, right, 0).unwrap();
        let _kernel = LiveKernel::open(bpffs, true).unwrap();
        assert_eq!(near(bpffs).get(&at, 0).unwrap(), right);
        assert_eq!(owner(bpffs, [10, 244, 1, 77]), Addr::UNSPECIFIED);
        assert_eq!(owner(bpffs, [10, 244, 1, 78]), Addr::UNSPECIFIED);
        assert!(all_are_near(bpffs));
    });
}
