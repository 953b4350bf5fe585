//! What pods get, and what uplinks get back.

use super::*;
use crate::fake;
use crate::kernel::Hop;
use crate::model::Network;

const SET: u32 = 200_000;

fn model(big_tcp: BigTcpMode, encapsulation: Encapsulation) -> Model {
    let model = fake::model();
    let network = Network { big_tcp, encapsulation, ..model.network.clone() };
    Model { network, ..model }
}

fn direct(big_tcp: BigTcpMode) -> Model {
    model(big_tcp, Encapsulation::Direct)
}

fn all(size: u32) -> Aggregates {
    Aggregates { gso: size, gro: size, gso_ipv4: size, gro_ipv4: size }
}

fn with_uplink(aggregates: Aggregates) -> Observed {
    let mut observed = fake::interfaces();
    uplink(&mut observed).aggregates = aggregates;
    observed
}

fn uplink(observed: &mut Observed) -> &mut Link {
    observed.interfaces.get_mut("eth0").unwrap()
}

fn add_pod(observed: &mut Observed, name: &str, size: u32) {
    let link = Link { aggregates: all(size), ..fake::link(name, 30, 1500, &[]) };
    observed.interfaces.insert(name.to_owned(), link);
}

fn chosen(model: &Model, observed: &Observed) -> Chosen {
    choose(model, &[&observed.interfaces["eth0"]], observed, 1500)
}

#[test]
fn a_tunnel_and_devices_as_they_come_leave_it_off() {
    let large = with_uplink(all(SET));
    for mode in [BigTcpMode::Auto, BigTcpMode::Off] {
        for encapsulation in [Encapsulation::Vxlan, Encapsulation::Auto] {
            let chosen = chosen(&model(mode, encapsulation), &large);
            assert!(chosen.pods.is_off() && chosen.uplinks.is_empty(), "{chosen:?}");
        }
    }
    let chosen = chosen(&direct(BigTcpMode::Auto), &fake::interfaces());
    assert!(chosen.pods.is_off() && chosen.uplinks.is_empty(), "{chosen:?}");
    assert!(chosen.why.starts_with("off: eth0 takes 65536 of IPv4"), "{}", chosen.why);
    let none = choose(&direct(BigTcpMode::On), &[], &large, 1500);
    assert!(none.pods.is_off() && none.why.contains("no uplink"), "{none:?}");
}

#[test]
fn auto_takes_the_smallest_of_each_family_on_every_way() {
    let model = direct(BigTcpMode::Auto);
    let mut observed = with_uplink(Aggregates { gso: 65_536, ..all(SET) });
    assert_eq!(chosen(&model, &observed).pods, BigTcp { ipv4: Some(SET), ipv6: None });
    uplink(&mut observed).aggregates = all(600_000);
    let most = Some(AGGREGATE_MAX);
    assert_eq!(chosen(&model, &observed).pods, BigTcp { ipv4: most, ipv6: most });
    // A node, then the world of one family, by another device.
    let eth1 = Link { aggregates: all(100_000), ..fake::link("eth1", 9, 1500, &[]) };
    observed.interfaces.insert("eth1".to_owned(), eth1);
    let by_eth1 = || fake::route("eth1", None);
    let [world4, _] = WORLD;
    observed.peer_routes.insert(world4, by_eth1());
    assert_eq!(chosen(&model, &observed).pods, BigTcp { ipv4: Some(100_000), ipv6: most });
    observed.peer_routes.insert("192.168.1.13".parse().unwrap(), by_eth1());
    let smaller = Some(100_000);
    assert_eq!(chosen(&model, &observed).pods, BigTcp { ipv4: smaller, ipv6: smaller });
    // What leads nowhere takes nothing.
    observed.peer_routes.insert(world4, fake::route("lo", None));
    assert_eq!(chosen(&model, &observed).pods, BigTcp { ipv4: smaller, ipv6: smaller });
    let hops: Vec<&Hop> = observed.peer_routes.values().flat_map(|route| &route.hops).collect();
    assert!(hops.iter().any(|hop| hop.device == "lo"));
}

#[test]
fn on_raises_the_uplinks_first_and_then_the_pods() {
    let model = direct(BigTcpMode::On);
    let mut observed = fake::interfaces();
    let before = chosen(&model, &observed);
    let set = Aggregates { gro: 65_536, ..all(AGGREGATE_MAX) };
    assert!(before.pods.is_off(), "{before:?}");
    assert_eq!(before.uplinks, [("eth0".to_owned(), set)].into());
    assert_eq!(before.raised["eth0"].before, Aggregates::default());
    uplink(&mut observed).aggregates = set;
    let after = chosen(&Model { raised: before.raised.clone(), ..model.clone() }, &observed);
    assert_eq!(after.pods, BigTcp { ipv4: Some(AGGREGATE_MAX), ipv6: Some(AGGREGATE_MAX) });
    assert_eq!((after.raised, after.uplinks), (before.raised, before.uplinks));
    // One that is set so already is not ours to put back.
    let chosen = chosen(&model, &observed);
    assert!(chosen.raised.is_empty() && !chosen.pods.is_off(), "{chosen:?}");
}

#[test]
fn on_leaves_a_device_that_can_take_no_more() {
    let mut observed = fake::interfaces();
    uplink(&mut observed).aggregates_max = 65_536;
    let chosen = chosen(&direct(BigTcpMode::On), &observed);
    assert!(chosen.pods.is_off() && chosen.uplinks.is_empty(), "{chosen:?}");
    assert!(chosen.why.contains("eth0 can take 65536"), "{}", chosen.why);
}

#[test]
fn where_the_kernel_forwards_no_larger_packets_ipv6_is_left_out() {
    let model = direct(BigTcpMode::Auto);
    let narrow = |name: &str, address: &str| {
        let mut observed = with_uplink(all(SET));
        let link = fake::link(name, 9, 1420, &[address]);
        observed.interfaces.insert(name.to_owned(), link);
        chosen(&model, &observed)
    };
    assert_eq!(narrow("wan", "192.0.2.9/24").pods.ipv6, Some(SET), "no IPv6 there");
    let left_out = narrow("wan", "2001:db8:1::1/64");
    assert_eq!(left_out.pods, BigTcp { ipv4: Some(SET), ipv6: None });
    assert!(left_out.why.contains("wan has an MTU of 1420"), "{}", left_out.why);
    let mut observed = with_uplink(all(SET));
    let mut route = fake::route("eth0", Some("fd00:1::1"));
    std::sync::Arc::make_mut(&mut route).mtu = Some(1_480);
    observed.peer_routes.insert(WORLD[1], route);
    let chosen = chosen(&model, &observed);
    assert!(chosen.pods.ipv6.is_none() && chosen.why.contains("MTU of 1480"), "{chosen:?}");
    let tight = choose(&model, &[&observed.interfaces["eth0"]], &with_uplink(all(SET)), 1_284);
    assert_eq!(tight.pods, BigTcp { ipv4: Some(SET), ipv6: None });
}

/// An uplink that we raised, and a model that knows.
fn raised(big_tcp: BigTcpMode) -> (Model, Observed) {
    let set = Aggregates { gro: 65_536, ..all(AGGREGATE_MAX) };
    let raised = Raised { ifindex: 2, before: Aggregates::default(), set };
    let raised = [("eth0".to_owned(), raised)].into();
    (Model { raised, ..direct(big_tcp) }, with_uplink(set))
}

#[test]
fn an_uplink_is_put_back_when_no_pod_needs_it_raised() {
    for mode in [BigTcpMode::Off, BigTcpMode::Auto] {
        let (model, mut observed) = raised(mode);
        add_pod(&mut observed, "pwaaaaaaaaaaaaa", 65_536);
        let back = [("eth0".to_owned(), Aggregates::default())].into();
        let chosen_now = chosen(&model, &observed);
        assert_eq!((chosen_now.uplinks, chosen_now.pods), (back, BigTcp::default()), "{mode:?}");
        assert_eq!(chosen_now.raised, model.raised, "until it is done");
        add_pod(&mut observed, "pwbbbbbbbbbbbbb", AGGREGATE_MAX);
        let waiting = chosen(&model, &observed);
        assert!(waiting.uplinks.is_empty() && waiting.raised == model.raised, "{waiting:?}");
        assert!(waiting.why.contains("until 1 pods"), "{}", waiting.why);
        assert_eq!(problem(&[&observed.interfaces["eth0"]], &observed), None);
        observed.interfaces.remove("pwbbbbbbbbbbbbb");
        uplink(&mut observed).aggregates = Aggregates::default();
        let done = chosen(&model, &observed);
        assert!(done.uplinks.is_empty() && done.raised.is_empty(), "{done:?}");
    }
}

#[test]
fn what_somebody_else_did_to_an_uplink_stays() {
    let (model, mut observed) = raised(BigTcpMode::Off);
    uplink(&mut observed).aggregates = all(SET);
    let changed = chosen(&model, &observed);
    assert!(changed.uplinks.is_empty() && changed.raised.is_empty(), "{changed:?}");
    let (model, mut observed) = raised(BigTcpMode::Off);
    uplink(&mut observed).ifindex = 77;
    let another = chosen(&model, &observed);
    assert!(another.uplinks.is_empty() && another.raised.is_empty(), "{another:?}");
}

#[test]
fn pods_that_send_larger_packets_than_an_uplink_takes_are_a_problem() {
    let mut observed = with_uplink(all(100_000));
    add_pod(&mut observed, "pwaaaaaaaaaaaaa", 100_000);
    assert_eq!(problem(&[&observed.interfaces["eth0"]], &observed), None);
    add_pod(&mut observed, "pwbbbbbbbbbbbbb", SET);
    let said = problem(&[&observed.interfaces["eth0"]], &observed).unwrap();
    assert!(said.starts_with("1 pods") && said.contains("eth0"), "{said}");
    // Not the kernel's default, whatever the device takes.
    uplink(&mut observed).aggregates = all(16_384);
    observed.interfaces.remove("pwbbbbbbbbbbbbb");
    add_pod(&mut observed, "pwaaaaaaaaaaaaa", 65_536);
    assert_eq!(problem(&[&observed.interfaces["eth0"]], &observed), None);
}
