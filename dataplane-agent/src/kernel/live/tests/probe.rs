//! Probes: what they say is so, and they leave nothing.

use super::*;
use crate::kernel::live::probe::Answer;
use crate::kernel::live::probe::devices::{devices, kinds, routes};
use crate::kernel::live::probe::features::{self, Trial};
use crate::kernel::live::probe::traffic;

fn answers(probes: &[crate::kernel::live::probe::Probe]) -> Vec<Answer> {
    probes.iter().map(|probe| probe.answer.clone()).collect()
}

#[test]
fn what_this_kernel_has_is_found_and_what_no_kernel_has_is_not() {
    isolated(async |_| {
        let found = answers(&kinds(&["veth", "vxlan", "podwire-none"]).await);
        assert_eq!(found, [Answer::Yes, Answer::Yes, Answer::No]);
        assert_eq!(run("ip -brief link").lines().count(), 1, "a device was made");
        assert_eq!(answers(&features::program_types()), [Answer::Yes]);
        for probes in [features::map_types().unwrap(), features::helpers()] {
            assert!(probes.iter().all(|probe| probe.answer == Answer::Yes), "{probes:?}");
        }
        let trial = Trial::load().unwrap();
        assert_eq!(trial.tcx(), Answer::Yes);
        assert_eq!(trial.tags().len(), 5);
        features::nftables().await.unwrap();
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn devices_routes_and_programs_of_others_are_seen() {
    isolated(async |_| {
        run("ip link add v type vxlan id 1 dstport 7777 dev lo && ip link add other0 type bridge");
        run(
            "ip link set other0 up && ip route add 192.0.2.0/24 dev other0 && ip route add blackhole 192.0.2.0/26",
        );
        let devices = devices().await.unwrap();
        assert_eq!(devices["v"].vxlan_port, Some(7777));
        assert_eq!((devices["other0"].vxlan_port, devices["other0"].xdp), (None, None));
        let found = routes(|route| route.destination.addr().is_ipv4()).await.unwrap();
        let of_d = vec![devices["other0"].link.ifindex];
        let found: Vec<_> =
            found.iter().map(|one| (one.is_blackhole, one.ifindexes.clone())).collect();
        assert!(found.contains(&(true, vec![])) && found.contains(&(false, of_d)), "{found:?}");
        for hook in [LinkHook::Ingress, LinkHook::Egress] {
            assert_eq!(traffic::tcx(&devices["other0"].link, hook).unwrap(), Vec::<u32>::new());
        }
        assert_eq!(traffic::filters(&devices["other0"].link).await.unwrap(), Vec::<String>::new());
    });
}
