//! From models to states.

use super::*;
use crate::fake;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn with(encapsulation: Encapsulation) -> (Model, Observed) {
    let mut model = fake::model();
    model.network.encapsulation = encapsulation;
    let mut observed = fake::interfaces();
    observed.interfaces.insert(HOST_DEVICE.to_owned(), fake::link(HOST_DEVICE, 10, 65_535, &[]));
    let tunnel = fake::link(TUNNEL_DEVICE, 11, 1_450, &[]);
    observed.interfaces.insert(TUNNEL_DEVICE.to_owned(), tunnel);
    (model, observed)
}

#[test]
fn direct() {
    let (model, observed) = with(Encapsulation::Direct);
    let compiled = compile(&model, &observed);
    assert_eq!(compiled.uplinks, ["eth0"]);
    assert_eq!(compiled.pod_mtu, 1_500);
    assert_eq!(compiled.problems, Vec::<String>::new());
    let state = compiled.state;
    assert_eq!(state.devices.keys().collect::<Vec<_>>(), [HOST_DEVICE]);
    assert_eq!(state.addresses, [net("10.244.1.1/32"), net("fd00:10:244:1::1/128")].into());
    let route = &state.routes[&net("10.244.0.0/16")];
    assert_eq!(*route, Route { source: ip("10.244.1.1"), mtu: 1_500 });
    let entry = state.nodes[&net("fd00:10:244:2::/64")];
    let node = Addr::from(ip("fd00:1::12"));
    assert_eq!(entry, NodeEntry { node, kind: NodeEntry::DIRECT, mtu: 1_500 });
    assert_eq!(state.nodes[&net("10.244.1.0/24")].kind, NodeEntry::OWN);
    assert_eq!(state.nodes[&net("10.244.0.0/16")].kind, NodeEntry::CLUSTER);
    assert_eq!(state.nodes[&net("192.168.1.11/32")].kind, NodeEntry::NODE);
    let of_ipv6 = state.nodes[&net("fd00:1::13/128")];
    assert_eq!((of_ipv6.kind, of_ipv6.node), (NodeEntry::NODE, ip("192.168.1.13").into()));
    let config = state.config.unwrap();
    assert_eq!((config.flags, config.tunnel_ifindex), (Config::ACCEPT_DIRECT, 0));
    assert_eq!((config.host_ifindex, config.node_ipv4), (10, Addr::from(ip("192.168.1.11"))));
    assert_eq!(state.nft.unwrap().tunnel_port, None);
    let host = &state.pods[&Addr::from(ip("10.244.1.1")).into()];
    assert_eq!((host.kind, host.ifindex, host.generation), (PodEntry::HOST, 10, 0));
}

#[test]
fn vxlan() {
    let (model, observed) = with(Encapsulation::Vxlan);
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!(pod_mtu, 1_450);
    assert_eq!(state.devices[TUNNEL_DEVICE], Device::Tunnel { port: 8472, mtu: 1_450 });
    let entry = state.nodes[&net("fd00:10:244:2::/64")];
    let node = Addr::from(ip("192.168.1.12"));
    assert_eq!(entry, NodeEntry { node, kind: NodeEntry::TUNNEL, mtu: 1_450 });
    let config = state.config.unwrap();
    assert_eq!((config.flags, config.tunnel_ifindex), (0, 11));
    let with_ipsec = Observed { has_ipsec: true, ..observed };
    let flags = compile(&model, &with_ipsec).state.config.unwrap().flags;
    assert_eq!(flags, Config::OUTER_BY_STACK);
    let link = state.links[&(TUNNEL_DEVICE.to_owned(), LinkHook::Ingress)].as_str();
    assert_eq!(link, PROGRAM_FROM_TUNNEL);
}

#[test]
fn auto_is_direct_on_the_link_and_tunnelled_beyond() {
    let (mut model, observed) = with(Encapsulation::Auto);
    model.nodes[2].addresses = vec![ip("192.168.7.13"), ip("fd00:7::13")];
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!(pod_mtu, 1_450);
    let kind = |cidr| (state.nodes[&net(cidr)].kind, state.nodes[&net(cidr)].mtu);
    assert_eq!(kind("10.244.2.0/24"), (NodeEntry::DIRECT, 1_500));
    assert_eq!(kind("10.244.3.0/24"), (NodeEntry::TUNNEL, 1_450));
    model.nodes.remove(1);
    let flags = compile(&model, &observed).state.config.unwrap().flags;
    assert_eq!(flags, Config::ACCEPT_DIRECT, "another node may see a link where this one does not");
}

#[test]
fn an_ipv6_underlay_costs_more() {
    let (mut model, observed) = with(Encapsulation::Vxlan);
    for node in &mut model.nodes {
        node.addresses.remove(0);
    }
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!(pod_mtu, 1_430);
    assert_eq!(state.nodes[&net("10.244.2.0/24")].node, Addr::from(ip("fd00:1::12")));
    assert_eq!(state.nodes[&net("10.244.2.0/24")].mtu, 1_430);
}

#[test]
fn without_cluster_networks_the_union_is_routed() {
    let (mut model, observed) = with(Encapsulation::Direct);
    model.network.cluster_cidrs.clear();
    let state = compile(&model, &observed).state;
    let routes: Vec<String> = state.routes.keys().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        ["10.244.1.0/24", "10.244.2.0/23", "fd00:10:244:1::/64", "fd00:10:244:2::/63"]
    );
    model.nodes.truncate(1);
    let state = compile(&model, &observed).state;
    assert_eq!(state.nodes[&net("10.244.1.0/24")].kind, NodeEntry::OWN, "the node's entry wins");
}

#[test]
fn nothing_that_needs_an_interface_before_it_is_there() {
    let (model, mut observed) = with(Encapsulation::Vxlan);
    observed.interfaces.remove(TUNNEL_DEVICE);
    assert_eq!(compile(&model, &observed).state.config, None);
    observed.interfaces.remove(HOST_DEVICE);
    let state = compile(&model, &observed).state;
    assert!(state.config.is_none() && state.pods.is_empty());
    assert_eq!(state.links.len(), 1, "the uplink's only");
}

#[test]
fn pods_and_their_links() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    let attached = fake::attached("c1", 20, "10.244.1.5", 7);
    let name = attached.attachment.host_ifname();
    model.attachments.insert(name.clone(), attached.clone());
    let key = AddrKey::from(Addr::from(ip("10.244.1.5")));
    assert!(!compile(&model, &observed).state.pods.contains_key(&key), "no such interface");
    observed.interfaces.insert(name.clone(), fake::link(&name, 21, 1_500, &[]));
    assert!(!compile(&model, &observed).state.pods.contains_key(&key), "another interface");
    observed.interfaces.insert(name.clone(), fake::link(&name, 20, 1_500, &[]));
    let state = compile(&model, &observed).state;
    assert_eq!(state.pods[&key], attached.entry());
    assert_eq!(state.links[&(name.clone(), LinkHook::Ingress)], PROGRAM_FROM_POD);
    assert_eq!(state.links[&(name, LinkHook::Egress)], PROGRAM_TO_POD);
}

#[test]
fn links_of_pods_in_the_making_stay_and_released_ones_go() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    let name = fake::attached("c1", 20, "10.244.1.5", 7).attachment.host_ifname();
    let key = (name.clone(), LinkHook::Ingress);
    observed.state.links.insert(key.clone(), PROGRAM_FROM_POD.to_owned());
    assert!(compile(&model, &observed).state.links.contains_key(&key));
    model.released.insert(name);
    assert!(!compile(&model, &observed).state.links.contains_key(&key));
}

#[test]
fn orphans_keep_their_entries_while_their_interface_lives() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    let attached = fake::attached("c1", 20, "10.244.1.5", 7);
    let name = attached.attachment.host_ifname();
    let key = AddrKey::from(Addr::from(ip("10.244.1.5")));
    model.orphans.insert(name.clone(), vec![(key, attached.entry())]);
    assert!(!compile(&model, &observed).state.pods.contains_key(&key));
    observed.interfaces.insert(name.clone(), fake::link(&name, 20, 1_500, &[]));
    assert_eq!(compile(&model, &observed).state.pods[&key], attached.entry());
}

#[test]
fn uplinks_stay_while_the_address_is_away() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    observed.interfaces.get_mut("eth0").unwrap().addresses.clear();
    assert_eq!(compile(&model, &observed).uplinks, Vec::<String>::new());
    model.last_uplinks = vec!["eth0".to_owned()];
    let compiled = compile(&model, &observed);
    assert_eq!(compiled.uplinks, ["eth0"]);
    assert!(compiled.problems[0].contains("no interface has 192.168.1.11"));
}

#[test]
fn an_address_of_the_loopback_names_no_uplink() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    let addresses = std::mem::take(&mut observed.interfaces.get_mut("eth0").unwrap().addresses);
    observed.interfaces.get_mut("lo").unwrap().addresses.extend(addresses);
    let compiled = compile(&model, &observed);
    assert_eq!(compiled.uplinks, Vec::<String>::new());
    assert!(compiled.problems[0].contains("--uplink"), "{:?}", compiled.problems);
    model.network.uplinks = vec!["eth0".to_owned(), "eth9".to_owned()];
    let compiled = compile(&model, &observed);
    assert_eq!(compiled.uplinks, ["eth0"]);
    assert_eq!(compiled.problems, ["there is no uplink eth9: correct --uplink, or create it"]);
}

#[test]
fn router_advertisements_survive_forwarding() {
    let (model, mut observed) = with(Encapsulation::Direct);
    let path = "net/ipv6/conf/eth0/accept_ra";
    assert!(watched_sysctls(&model, &observed).contains(path));
    assert!(!compile(&model, &observed).state.sysctls.contains_key(path));
    for (value, wanted) in [("0", None), ("1", Some("2")), ("2", Some("2"))] {
        observed.state.sysctls.insert(path.to_owned(), value.to_owned());
        let state = compile(&model, &observed).state;
        assert_eq!(state.sysctls.get(path).map(String::as_str), wanted);
    }
}

#[test]
fn strict_rp_filter_is_told() {
    let (model, mut observed) = with(Encapsulation::Direct);
    observed.state.sysctls.insert("net/ipv4/conf/all/rp_filter".to_owned(), "1".to_owned());
    assert!(compile(&model, &observed).problems[0].contains("rp_filter"));
    observed.state.sysctls.insert("net/ipv4/conf/eth0/rp_filter".to_owned(), "2".to_owned());
    assert!(compile(&model, &observed).problems.is_empty());
}
