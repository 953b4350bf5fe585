//! What the kernel tells of changes.

use super::*;

#[test]
fn changes_are_told() {
    isolated(async |bpffs| {
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let peers = [("192.168.1.12".parse().unwrap(), "192.168.1.11".parse().unwrap())].into();
        kernel.observe(&Questions { peers, ..Questions::default() }).await.unwrap();
        let mut events = kernel.watch().unwrap();
        for command in [
            "ip link add watched type bridge",
            "ip addr add 10.9.9.9/32 dev watched",
            "ip -6 route add blackhole fd00:9::/64 proto 157",
            "ip route add blackhole 192.168.1.0/24",
            "ip rule add to 192.168.1.0/24 lookup 100",
            "nft add table inet podwire",
        ] {
            run(command);
            next(&mut events).await.unwrap_or_else(|| panic!("not told: {command}"));
            while next(&mut events).await.is_some() {}
        }
        let ifindex = netlink::Netlink::index("watched").unwrap();
        run("ip link del watched");
        let removed = Event::LinkRemoved { ifindex, name: "watched".to_owned() };
        while let Some(event) = next(&mut events).await {
            if event == removed {
                return;
            }
        }
        panic!("the removal of a link was not told");
    });
}

#[test]
fn more_changes_than_the_socket_holds_do_not_end_the_watch() {
    isolated(async |_| {
        let mut events = crate::kernel::live::watch::watch(Arc::default()).unwrap();
        // Nobody reads meanwhile: this thread is the runtime.
        run(
            "for i in $(seq 4000); do echo addr add 10.8.$((i / 250)).$((i % 250))/32 dev lo; done \
             | ip -batch -",
        );
        let mut told = 0;
        while next(&mut events).await.is_some() {
            told += 1;
        }
        assert!((1..4000).contains(&told), "{told}");
        run("ip addr add 10.9.9.9/32 dev lo");
        assert_eq!(next(&mut events).await, Some(Event::Changed));
    });
}
