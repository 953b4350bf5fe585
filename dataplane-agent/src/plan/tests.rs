//! Plans reach what is wanted, from anywhere.

use std::collections::BTreeMap;

use dataplane_core::abi::{Config, Mac, NodeEntry, PodEntry};
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::fake;
use crate::kernel::{Device, HOST_DEVICE, Neighbour, NftRules, NodeTable, Route, TUNNEL_DEVICE};

fn nets() -> impl Strategy<Value = IpNet> {
    prop::sample::select(vec!["10.1.0.1/32", "10.2.0.0/16", "fd00::1/128", "fd01::/64"])
        .prop_map(|net| net.parse().unwrap())
}

fn devices() -> impl Strategy<Value = BTreeMap<String, Device>> {
    let host = prop::option::of((0..2_u32).prop_map(|mtu| Device::Host { mtu }));
    let tunnel = prop::option::of((0..2_u32).prop_map(|mtu| Device::Tunnel { port: 1, mtu }));
    (host, tunnel).prop_map(|(host, tunnel)| {
        let host = host.map(|device| (HOST_DEVICE.to_owned(), device));
        host.into_iter().chain(tunnel.map(|device| (TUNNEL_DEVICE.to_owned(), device))).collect()
    })
}

fn config(ifindex: u32) -> Config {
    let model = fake::model();
    let mut observed = fake::interfaces();
    let host = fake::link(HOST_DEVICE, ifindex, 65_535, &[]);
    observed.interfaces.insert(HOST_DEVICE.to_owned(), host.clone());
    observed.interfaces.insert(TUNNEL_DEVICE.to_owned(), host);
    crate::compile::compile(&model, &observed).state.config.unwrap()
}

fn maps() -> impl Strategy<Value = (BTreeMap<AddrKey, PodEntry>, NodeTable)> {
    let pod = (0..4_u8, 0..3_u32).prop_map(|(key, ifindex)| {
        let (mac, kind) = (Mac::default(), PodEntry::POD);
        let generation = u64::from(ifindex);
        let entry = PodEntry { ifindex, kind, mac, gateway_mac: mac, reserved: 0, generation };
        (AddrKey([key; 16]), entry)
    });
    let node = (nets(), 1..4_u32)
        .prop_map(|(net, kind)| (net, NodeEntry { node: Addr::UNSPECIFIED, kind, mtu: 0 }));
    (prop::collection::btree_map(0..9, pod, 0..5), prop::collection::btree_map(0..9, node, 0..5))
        .prop_map(|(pods, nodes)| (pods.into_values().collect(), nodes.into_values().collect()))
}

fn links() -> impl Strategy<Value = BTreeMap<(String, LinkHook), String>> {
    let key = (prop::sample::select(vec!["eth0", "eth1", "podwire0"]), any::<bool>()).prop_map(
        |(name, ingress)| {
            (name.to_owned(), if ingress { LinkHook::Ingress } else { LinkHook::Egress })
        },
    );
    let program = prop::sample::select(vec!["pw_from_net", ""]).prop_map(str::to_owned);
    prop::collection::btree_map(key, program, 0..4)
}

prop_compose! {
    fn states()(
        devices in devices(),
        addresses in prop::collection::btree_set(nets(), 0..3),
        routes in prop::collection::btree_map(nets(), 0..3_u32, 0..3),
        sysctls in prop::collection::btree_map("[a-c]", "[01]", 0..3),
        nft in prop::option::of(0..3_u16),
        links in links(),
        config_ifindex in 0..3_u32,
        neighbours in prop::collection::btree_set("[a-c]", 0..3),
        (pods, nodes) in maps(),
    ) -> State {
        let source = "10.0.0.1".parse().unwrap();
        State {
            aggregates: BTreeMap::new(),
            devices,
            addresses,
            routes: routes.into_iter().map(|(to, mtu)| (to, Route { source, mtu })).collect(),
            neighbours: neighbours.into_iter().map(|device| Neighbour { device, address: source }).collect(),
            sysctls,
            nft: nft.map(|port| NftRules {
                pods: [].into(),
                cluster: [].into(),
                nodes: [].into(),
                own: [].into(),
                tunnel_port: Some(port),
            }),
            links,
            config: Some(config(config_ifindex)),
            pods,
            nodes,
        }
    }
}

proptest! {
    #[test]
    fn reaches_what_is_wanted_from_any_state(mut observed in states(), wanted in states()) {
        for action in plan(&observed, &wanted) {
            fake::change(&mut observed, &action);
        }
        let mut reached = observed.clone();
        reached.sysctls.retain(|path, _| wanted.sysctls.contains_key(path));
        prop_assert_eq!(&reached, &wanted);
        prop_assert_eq!(plan(&observed, &wanted), vec![]);
    }

    #[test]
    fn nothing_to_do_is_nothing_done(state in states()) {
        prop_assert_eq!(plan(&state, &state), vec![]);
    }

    #[test]
    fn only_what_was_wanted_before_is_drift(before in states(), wanted in states()) {
        // Nobody interferes: all that is to do comes from the change of what is wanted.
        for action in plan(&before, &wanted) {
            prop_assert_eq!(drift(&action, &before, &wanted), 0, "{:?}", action);
        }
        // Nothing wanted changes: all that is to do comes from somebody else, or from the kernel.
        for action in plan(&before, &wanted) {
            let is_kernel = kind(&action) == "neighbour";
            prop_assert!((drift(&action, &wanted, &wanted) > 0) != is_kernel, "{action:?}");
        }
    }
}

#[test]
fn what_others_stand_on_comes_first_and_goes_last() {
    let mut observed = fake::interfaces();
    let host = fake::link(HOST_DEVICE, 9, 65_535, &[]);
    observed.interfaces.insert(HOST_DEVICE.to_owned(), host.clone());
    observed.interfaces.insert(TUNNEL_DEVICE.to_owned(), host);
    observed.state.sysctls.insert("net/ipv6/conf/eth0/accept_ra".to_owned(), "1".to_owned());
    let wanted = crate::compile::compile(&fake::model(), &observed).state;
    let order = |actions: Vec<Action>| {
        let mut kinds: Vec<&str> = actions.iter().map(kind).collect();
        kinds.dedup();
        kinds
    };
    let up = plan(&observed.state, &wanted);
    let want = [
        "nftables",
        "device",
        "sysctl",
        "address",
        "neighbour",
        "node",
        "pod",
        "config",
        "link",
        "route",
    ];
    let first_sysctl = up.iter().find(|action| kind(action) == "sysctl").map(describe);
    assert_eq!(first_sysctl.unwrap(), "sysctl net/ipv6/conf/eth0/accept_ra=2");
    assert_eq!(order(up), want);
    let down = order(plan(&wanted, &State::default()));
    assert_eq!(
        down,
        ["route", "link", "pod", "node", "neighbour", "address", "device", "nftables"]
    );
}
