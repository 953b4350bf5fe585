//! From models to states.

use std::sync::Arc;

use dataplane_core::abi::NodeEntry;

use super::*;
use crate::fake;
use crate::kernel::Neighbour;

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
    let (mut model, mut observed) = with(Encapsulation::Auto);
    through(&mut observed, &["192.168.1.13", "fd00:1::13"], "eth0", Some("192.168.1.1"));
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!(pod_mtu, 1_450);
    let kind = |cidr| (state.nodes[&net(cidr)].kind, state.nodes[&net(cidr)].mtu);
    assert_eq!(kind("10.244.2.0/24"), (NodeEntry::DIRECT, 1_500));
    assert_eq!(kind("10.244.3.0/24"), (NodeEntry::TUNNEL, 1_450));
    model.nodes.remove(1);
    let flags = compile(&model, &observed).state.config.unwrap().flags;
    assert_eq!(flags, Config::ACCEPT_DIRECT, "another node may see a link where this one does not");
}

fn through(observed: &mut Observed, nodes: &[&str], device: &str, gateway: Option<&str>) {
    let routes = nodes.iter().map(|node| (ip(node), fake::route(device, gateway)));
    observed.peer_routes.extend(routes);
}

#[test]
fn auto_is_direct_only_where_the_route_leaves_by_an_uplink() {
    let (model, mut observed) = with(Encapsulation::Auto);
    // The address lies within the prefix of the uplink, and yet another device leads there.
    observed.interfaces.insert("wg0".to_owned(), fake::link("wg0", 3, 1_420, &[]));
    through(&mut observed, &["192.168.1.13"], "wg0", None);
    observed.peer_routes.remove(&ip("fd00:1::13"));
    let Compiled { state, pod_mtu, problems, .. } = compile(&model, &observed);
    for cidr in ["10.244.3.0/24", "fd00:10:244:3::/64"] {
        let entry = state.nodes[&net(cidr)];
        let node = Addr::from(ip("192.168.1.13"));
        assert_eq!(entry, NodeEntry { node, kind: NodeEntry::TUNNEL, mtu: 1_370 });
    }
    assert_eq!(state.nodes[&net("10.244.2.0/24")].kind, NodeEntry::DIRECT);
    assert_eq!(pod_mtu, 1_370);
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn a_node_without_a_route_is_named() {
    let (model, mut observed) = with(Encapsulation::Auto);
    observed.peer_routes.retain(|node, _| *node != ip("192.168.1.13"));
    let compiled = compile(&model, &observed);
    assert_eq!(compiled.state.nodes[&net("10.244.3.0/24")].kind, NodeEntry::TUNNEL);
    assert_eq!(compiled.problems.len(), 1);
    assert!(compiled.problems[0].starts_with("the kernel has no route to c:"));
    observed.peer_routes.clear();
    let problems = compile(&model, &observed).problems;
    assert!(problems[0].contains("no route to b, c"), "{problems:?}");
}

#[test]
fn the_narrowest_way_decides() {
    for (mode, pod_mtu, entry_mtu) in
        [(Encapsulation::Direct, 1_400, 1_400), (Encapsulation::Vxlan, 1_350, 1_350)]
    {
        let (model, mut observed) = with(mode);
        let route = observed.peer_routes.get_mut(&ip("192.168.1.13")).unwrap();
        Arc::make_mut(route).mtu = Some(1_400);
        let Compiled { state, pod_mtu: found, .. } = compile(&model, &observed);
        assert_eq!(found, pod_mtu);
        assert_eq!(state.nodes[&net("10.244.3.0/24")].mtu, entry_mtu);
        let other = state.nodes[&net("10.244.2.0/24")].mtu;
        assert_eq!(other, if mode == Encapsulation::Direct { 1_500 } else { 1_450 });
        assert_eq!(state.routes[&net("10.244.0.0/16")].mtu, pod_mtu, "what the error says");
    }
}

#[test]
fn every_next_hop_counts() {
    let (model, mut observed) = with(Encapsulation::Auto);
    observed.interfaces.insert("gre1".to_owned(), fake::link("gre1", 3, 1_476, &[]));
    let route = observed.peer_routes.get_mut(&ip("192.168.1.13")).unwrap();
    let other = fake::route("gre1", None);
    Arc::make_mut(route).hops.extend(other.hops.iter().cloned());
    let entry = compile(&model, &observed).state.nodes[&net("10.244.3.0/24")];
    assert_eq!((entry.kind, entry.mtu), (NodeEntry::TUNNEL, 1_426));
}

#[test]
fn one_node_with_ipv6_alone_makes_all_pods_narrower() {
    let (mut model, observed) = with(Encapsulation::Vxlan);
    Arc::make_mut(&mut model.nodes[2]).addresses.remove(0);
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!(pod_mtu, 1_430);
    assert_eq!(state.nodes[&net("10.244.2.0/24")].mtu, 1_450);
    assert_eq!(state.nodes[&net("10.244.3.0/24")].mtu, 1_430);
    assert_eq!(state.routes[&net("10.244.0.0/16")].mtu, 1_430);
}

#[test]
fn the_operator_knows_a_narrow_network() {
    let (mut model, mut observed) = with(Encapsulation::Vxlan);
    model.network.mtu = Some(1_400);
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!((pod_mtu, state.nodes[&net("10.244.2.0/24")].mtu), (1_350, 1_350));
    let route = observed.peer_routes.get_mut(&ip("192.168.1.13")).unwrap();
    Arc::make_mut(route).mtu = Some(1_390);
    assert_eq!(compile(&model, &observed).pod_mtu, 1_340, "a route says less still");
    model.network.mtu = Some(9_000);
    let compiled = compile(&model, &observed);
    assert_eq!(compiled.pod_mtu, 1_340);
    assert!(compiled.problems[0].starts_with("--mtu 9000 is more than"), "{:?}", compiled.problems);
    model.network.mtu = Some(1_300);
    let obstacle = compile(&model, &observed).obstacle.unwrap();
    assert!(obstacle.contains("raise that of --mtu from 1300 to 1330"), "{obstacle}");
    model.network.mtu = None;
    let route = observed.peer_routes.get_mut(&ip("192.168.1.13")).unwrap();
    Arc::make_mut(route).mtu = Some(1_300);
    let obstacle = compile(&model, &observed).obstacle.unwrap();
    assert!(obstacle.contains("that of the way to c (192.168.1.13) from 1300"), "{obstacle}");
}

#[test]
fn next_hops_that_programs_use_are_kept_fresh() {
    let kept = |model: &Model, observed: &Observed| {
        let neighbours = compile(model, observed).state.neighbours;
        let text = |n: &Neighbour| format!("{} {}", n.device, n.address);
        neighbours.iter().map(text).collect::<Vec<_>>()
    };
    let (mut model, mut observed) = with(Encapsulation::Auto);
    through(&mut observed, &["192.168.1.13", "fd00:1::13"], "eth0", Some("192.168.1.1"));
    let router = "eth0 192.168.1.1";
    assert_eq!(kept(&model, &observed), [router, "eth0 192.168.1.12", "eth0 fd00:1::12"]);
    let fixed = Neighbour { device: "eth0".to_owned(), address: ip("fd00:1::12") };
    observed.fixed_neighbours.insert(fixed);
    assert_eq!(kept(&model, &observed), [router, "eth0 192.168.1.12"]);
    model.network.encapsulation = Encapsulation::Direct;
    assert_eq!(kept(&model, &observed), [router, "eth0 192.168.1.12"]);
    observed.interfaces.get_mut("eth0").unwrap().up = false;
    assert!(kept(&model, &observed).is_empty());
    observed.interfaces.get_mut("eth0").unwrap().up = true;
    model.network.encapsulation = Encapsulation::Vxlan;
    assert_eq!(kept(&model, &observed), [router, "eth0 192.168.1.12"]);
    for node in &mut model.nodes {
        Arc::make_mut(node).addresses.remove(0);
    }
    assert!(kept(&model, &observed).is_empty(), "the stack sends tunnel packets over IPv6");
}

#[test]
fn devices_without_ethernet_carry_tunnels_only() {
    let bare = |mode| {
        let (model, mut observed) = with(mode);
        observed.interfaces.get_mut("eth0").unwrap().medium = Medium::Bare;
        compile(&model, &observed)
    };
    let compiled = bare(Encapsulation::Auto);
    assert_eq!(compiled.state.nodes[&net("10.244.2.0/24")].kind, NodeEntry::TUNNEL);
    assert_eq!(compiled.problems, Vec::<String>::new());
    assert!(!compiled.state.links.contains_key(&("eth0".to_owned(), LinkHook::Ingress)));
    let problems = bare(Encapsulation::Direct).problems;
    assert_eq!(problems.len(), 1);
    let said = ["eth0 has no Ethernet header", "`--encapsulation vxlan`"];
    assert!(said.iter().all(|said| problems[0].contains(said)), "{problems:?}");
}

#[test]
fn direct_through_a_device_that_is_no_uplink_is_told() {
    let (model, mut observed) = with(Encapsulation::Direct);
    observed.interfaces.insert("eth1".to_owned(), fake::link("eth1", 3, 1_400, &[]));
    through(&mut observed, &["192.168.1.13"], "eth1", Some("192.168.9.1"));
    let Compiled { problems, pod_mtu, .. } = compile(&model, &observed);
    assert!(problems[0].contains("c is reached through eth1") && problems.len() == 1);
    assert!(problems[0].contains("`--uplink eth1`"), "{problems:?}");
    assert_eq!(pod_mtu, 1_400);
}

#[test]
fn the_host_sends_to_old_pods_what_they_take() {
    let (model, mut observed) = with(Encapsulation::Direct);
    let name = fake::attached("c1", 20, "10.244.1.5", 7).attachment.host_ifname();
    observed.interfaces.insert(name.clone(), fake::link(&name, 20, 1_450, &[]));
    let Compiled { state, pod_mtu, .. } = compile(&model, &observed);
    assert_eq!(pod_mtu, 1_500);
    assert_eq!(state.routes[&net("10.244.0.0/16")].mtu, 1_450);
    assert_eq!(state.nodes[&net("10.244.2.0/24")].mtu, 1_500);
}

#[test]
fn the_kernel_is_asked_for_the_address_that_packets_carry() {
    let (mut model, observed) = with(Encapsulation::Auto);
    Arc::make_mut(&mut model.nodes[0]).addresses.remove(1);
    Arc::make_mut(&mut model.nodes[1]).addresses.push(ip("192.168.1.99"));
    let from = ip("192.168.1.11");
    let asked = questions(&model, &observed).peers;
    assert_eq!(asked, [(ip("192.168.1.12"), from), (ip("192.168.1.13"), from)].into());
}

#[test]
fn an_ipv6_underlay_costs_more() {
    let (mut model, observed) = with(Encapsulation::Vxlan);
    for node in &mut model.nodes {
        Arc::make_mut(node).addresses.remove(0);
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
fn pods_older_than_the_networks_of_the_node_keep_the_world() {
    let (mut model, mut observed) = with(Encapsulation::Vxlan);
    let attached = fake::attached("c1", 20, "10.244.1.5", 7);
    let name = attached.attachment.host_ifname();
    observed.interfaces.insert(name.clone(), fake::link(&name, 20, 1_450, &[]));
    model.attachments.insert(name, attached);
    assert_eq!(compile(&model, &observed).problems, Vec::<String>::new());
    assert_eq!(compile(&model, &observed).state.nodes.get(&net("10.244.1.5/32")), None);
    let networks = vec![net("10.244.7.0/24"), net("fd00:10:244:1::/64")];
    Arc::make_mut(&mut model.nodes[0]).pod_cidrs = networks;
    let Compiled { state, problems, .. } = compile(&model, &observed);
    assert!(state.nft.unwrap().pods.contains(&net("10.244.1.5/32")), "masqueraded and guarded");
    assert_eq!(state.nodes[&net("10.244.1.5/32")].kind, NodeEntry::OWN);
    assert!(problems[0].contains("10.244.1.5"), "{problems:?}");
}

#[test]
fn links_of_pods_in_the_making_stay_and_released_ones_go() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    let attached = fake::attached("c1", 20, "10.244.1.5", 7);
    let name = attached.attachment.host_ifname();
    let key = (name.clone(), LinkHook::Ingress);
    observed.state.links.insert(key.clone(), PROGRAM_FROM_POD.to_owned());
    assert!(compile(&model, &observed).state.links.contains_key(&key));
    // The plugin attaches while the agent works for it.
    model.attachments.insert(name.clone(), attached);
    let mut link = fake::link(&name, 20, 1_500, &[]);
    link.unused = true;
    observed.interfaces.insert(name.clone(), link);
    let links = compile(&model, &observed).state.links;
    assert!(links.contains_key(&key) && !links.contains_key(&(name.clone(), LinkHook::Egress)));
    model.attachments.remove(&name);
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
fn an_address_that_no_packet_arrives_at_names_no_uplink() {
    let (mut model, mut observed) = with(Encapsulation::Direct);
    let addresses = std::mem::take(&mut observed.interfaces.get_mut("eth0").unwrap().addresses);
    for (name, address) in ["lo", "dummy0"].into_iter().zip(addresses) {
        let link = Link { medium: Medium::Nothing, ..fake::link(name, 7, 1_500, &[]) };
        observed.interfaces.entry(name.to_owned()).or_insert(link).addresses.push(address);
    }
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

#[test]
fn what_is_taken_from_the_last_result_is_as_if_made_anew() {
    let (mut model, mut observed) = with(Encapsulation::Auto);
    let mut last = compile(&model, &observed);
    let mut check = |model: &Model, observed: &Observed| {
        let again = compile_again(model, observed, &last);
        assert_eq!(again, compile(model, observed));
        let is_same = again.state.nodes == last.state.nodes;
        last = again;
        is_same
    };
    assert!(check(&model, &observed));
    observed.peer_routes.insert(ip("192.168.1.12"), fake::route("eth0", Some("192.168.1.1")));
    assert!(!check(&model, &observed), "another way");
    Arc::make_mut(&mut model.nodes[2]).pod_cidrs.push(net("fd00:10:244:99::/64"));
    assert!(!check(&model, &observed), "another network");
    Arc::make_mut(&mut model.nodes[1]).addresses[1] = ip("fd00:1::99");
    assert!(!check(&model, &observed), "another address");
    model.network.cluster_cidrs.push(net("10.245.0.0/16"));
    assert!(!check(&model, &observed), "another network of the cluster");
    observed.interfaces.insert("pw1".to_owned(), fake::link("pw1", 20, 1_450, &[]));
    model.attachments.insert("pw1".to_owned(), fake::attached("c1", 20, "192.0.2.7", 1));
    assert!(!check(&model, &observed), "an address outside");
    model.own_name = "b".to_owned();
    assert!(!check(&model, &observed), "another node");
    assert!(check(&model, &observed));
}
