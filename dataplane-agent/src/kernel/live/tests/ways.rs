//! The ways to other nodes.

use super::*;

#[test]
fn the_ways_to_nodes_are_those_of_the_kernel() {
    isolated(async |_| {
        run("ip link add up0 mtu 1400 type veth peer name up0p && ip link set up0 up && \
             ip link add up1 type veth peer name up1p && ip link set up1 up && \
             ip link set up0p up && ip link set up1p up && \
             ip addr add 192.168.1.11/24 dev up0 && ip addr add fd00:1::11/64 dev up0 nodad && \
             ip route add 192.168.2.0/24 via 192.168.1.1 mtu 1300 && \
             ip -6 route add fd00:2::/64 via fd00:1::1 dev up0 mtu 1310 && \
             ip route add 192.168.3.0/24 nexthop via 192.168.1.1 nexthop dev up1 && \
             ip nexthop add id 7 via 192.168.1.2 dev up0 && \
             ip route add 192.168.4.0/24 nhid 7 && \
             ip route add unreachable 192.168.5.0/24 && \
             ip route add 192.168.6.0/24 via inet6 fe80::1 dev up0 && \
             ip rule add from 192.168.1.11 to 192.168.7.0/24 lookup 100 && \
             ip route add 192.168.7.0/24 dev up1 table 100");
        let netlink = netlink::Netlink::open().unwrap();
        let interfaces = netlink::interfaces(&netlink.links().await.unwrap());
        let from = |to: &str| -> std::net::IpAddr {
            if to.contains(':') { "fd00:1::11" } else { "192.168.1.11" }.parse().unwrap()
        };
        type Row = (&'static str, &'static [(&'static str, &'static str)], u32);
        let expected: [Row; 10] = [
            ("192.168.1.12", &[("up0", "")], 0),
            ("fd00:1::12", &[("up0", "")], 0),
            ("192.168.2.1", &[("up0", "192.168.1.1")], 1300),
            ("fd00:2::1", &[("up0", "fd00:1::1")], 1310),
            ("192.168.3.1", &[("up0", "192.168.1.1"), ("up1", "")], 0),
            ("192.168.4.1", &[("up0", "192.168.1.2")], 0),
            ("192.168.5.1", &[], 0),
            ("192.168.6.1", &[("up0", "fe80::1")], 0),
            ("192.168.7.1", &[("up1", "")], 0),
            ("192.168.1.11", &[], 0),
        ];
        let asked = expected.iter().map(|(to, ..)| (to.parse().unwrap(), from(to))).collect();
        let mut routes = peers::Asked::default();
        let found = routes.look(&asked, &interfaces).await.unwrap();
        for (to, hops, mtu) in expected {
            let hop = |(device, gateway): &(&str, &str)| Hop {
                device: (*device).to_owned(),
                gateway: gateway.parse().ok(),
            };
            let mtu = (mtu != 0).then_some(mtu);
            let wanted = PeerRoute { hops: hops.iter().map(hop).collect(), mtu };
            let wanted = (!hops.is_empty()).then_some(wanted);
            let found = found.0.get(&to.parse().unwrap()).map(AsRef::as_ref);
            assert_eq!(found, wanted.as_ref(), "{to}");
        }
    });
}

#[test]
fn a_new_node_is_asked_for_beside_those_that_are_known() {
    isolated(async |_| {
        run("ip link add up0 type veth peer name up0p && ip link set up0 up && \
             ip link set up0p up && ip addr add 10.1.0.1/16 dev up0 && \
             ip addr add 10.1.0.2/16 dev up0 && \
             ip rule add from 10.1.0.2 to 10.1.1.3 lookup 100 && \
             ip route add 10.1.1.3 dev up0 mtu 1400 table 100");
        let netlink = netlink::Netlink::open().unwrap();
        let interfaces = netlink::interfaces(&netlink.links().await.unwrap());
        let ip = |text: &str| -> std::net::IpAddr { text.parse().unwrap() };
        let mut routes = peers::Asked::default();
        let mut look = async |pairs: &[(&str, &str)]| {
            let asked = pairs.iter().map(|(to, from)| (ip(to), ip(from))).collect();
            routes.look(&asked, &interfaces).await.unwrap().0
        };
        let first = look(&[("10.1.1.2", "10.1.0.1"), ("10.1.1.3", "10.1.0.1")]).await;
        assert_eq!(first.len(), 2);
        assert!(Arc::ptr_eq(&first[&ip("10.1.1.2")], &first[&ip("10.1.1.3")]), "in memory once");
        // Nobody watches here: what is known stays as it was, until it is too old.
        run("ip route add 10.1.1.2 dev up0 mtu 1300 && ip route add 10.1.1.4 dev up0 mtu 1200");
        let pairs = [("10.1.1.2", "10.1.0.1"), ("10.1.1.3", "10.1.0.2"), ("10.1.1.4", "10.1.0.1")];
        let second = look(&pairs).await;
        let mtu = |to| second[&ip(to)].mtu;
        assert_eq!(mtu("10.1.1.2"), None, "not asked again");
        assert_eq!(mtu("10.1.1.3"), Some(1_400), "asked from another address");
        assert_eq!(mtu("10.1.1.4"), Some(1_200), "new");
        assert_eq!(look(&pairs[..1]).await.len(), 1, "the others are gone");
    });
}

#[test]
fn neighbours_are_kept_by_the_kernel_and_only_ours_are_known() {
    isolated(async |bpffs| {
        run("ip link add up0 type veth peer name up0p && ip link set up0 up && \
             ip link set up0p up && ip addr add 192.168.1.11/24 dev up0 && \
             ip neigh add 192.168.1.12 lladdr 02:00:00:00:00:12 nud stale dev up0 && \
             ip neigh add 192.168.1.13 lladdr 02:00:00:00:00:13 nud permanent dev up0 && \
             ip neigh add 192.168.1.14 managed dev up0");
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let neighbour =
            |text: &str| Neighbour { device: "up0".to_owned(), address: text.parse().unwrap() };
        let wanted = ["192.168.1.12", "192.168.1.15", "fe80::15"].map(neighbour);
        for one in &wanted {
            for _ in 0..2 {
                apply(&mut kernel, &[Action::PutNeighbour(one.clone())]).await;
            }
            let shown = run(&format!("ip neigh show {}", one.address));
            let said = ["managed", "extern_learn", "proto 157"];
            assert!(said.iter().all(|said| shown.contains(said)), "{shown}");
        }
        assert!(run("ip neigh show 192.168.1.12").contains("02:00:00:00:00:12"));
        let observed = kernel.observe(&Questions::default()).await.unwrap();
        assert_eq!(observed.state.neighbours, wanted.clone().into());
        assert_eq!(observed.fixed_neighbours, [neighbour("192.168.1.13")].into());
        for one in &wanted {
            for _ in 0..2 {
                apply(&mut kernel, &[Action::RemoveNeighbour(one.clone())]).await;
            }
        }
        assert_eq!(observe(&mut kernel).await.neighbours, BTreeSet::new());
        let shown = run("ip neigh show");
        let left: Vec<&str> = shown.lines().filter(|line| line.contains("managed")).collect();
        assert!(left.len() == 1 && left[0].starts_with("192.168.1.14"), "{shown}");
    });
}

#[test]
fn thousands_of_nodes_are_asked_for_once() {
    isolated(async |bpffs| {
        run("ip link add up0 type veth peer name up0p && ip link set up0 up && \
             ip link set up0p up && ip addr add 10.1.0.1/16 dev up0");
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let mut events = kernel.watch().unwrap();
        let node = |n: u16| std::net::IpAddr::from([10, 1, (n >> 8) as u8, (n & 0xff) as u8]);
        let peers = (2..5_002).map(|n| (node(n), node(1))).collect();
        let questions = Questions { peers, ..Questions::default() };
        let mut look = async || kernel.observe(&questions).await.unwrap().peer_routes;
        assert_eq!(look().await.len(), 5_000);
        let before = Instant::now();
        look().await;
        let again = before.elapsed();
        run("ip route add 10.1.2.0/24 dev up0 mtu 1400");
        assert_eq!(next(&mut events).await, Some(Event::Changed));
        let before = Instant::now();
        let routes = look().await;
        println!("5,000 ways: again {again:?}, after a change {:?}", before.elapsed());
        assert_eq!(routes[&node(0x1ff)].mtu, None);
        assert_eq!(routes[&node(0x201)].mtu, Some(1_400));
    });
}
