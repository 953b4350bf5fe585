//! The pools as the engine uses them.

use proptest::prelude::*;

use super::*;

fn cidrs(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|cidr| cidr.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn skips_network_gateway_and_broadcast() {
    let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]));
    let mut got: Vec<String> = Vec::new();
    while let Ok(addresses) = ipam.allocate(&[]) {
        got.push(addresses[0].to_string());
    }
    assert_eq!(got, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    let error = ipam.allocate(&[]).unwrap_err();
    assert_eq!(error.to_string(), "all 5 addresses of 10.0.0.0/29 are in use");
}

#[test]
fn one_of_each_family_or_none() {
    let mut ipam = Ipam::new(&cidrs(&["fd00::/64", "10.0.0.0/30"]));
    assert_eq!(ipam.allocate(&[]).unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
    assert!(ipam.allocate(&[]).is_err());
    assert_eq!(ipam.usage()[0].used, 1, "the IPv6 pool is untouched");
    let used = [(ip("fd00::2"), 1), (ip("fd00::3"), 2)];
    let mut ipam = Ipam::resume(&cidrs(&["10.0.0.0/24", "fd00::/126"]), used, 0);
    assert!(ipam.allocate(&[]).is_err());
    assert_eq!(ipam.usage()[0].used, 0, "the IPv4 address was given back");
}

#[test]
fn reuses_the_oldest_freed_last() {
    let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]));
    ipam.allocate(&[]).unwrap();
    ipam.allocate(&[]).unwrap();
    ipam.free(ip("10.0.0.3"));
    ipam.free(ip("10.0.0.2"));
    let next: Vec<IpAddr> = (0..5).map(|_| ipam.allocate(&[]).unwrap()[0]).collect();
    let want = ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"].map(ip);
    assert_eq!(next, want);
}

fn resumed(cidr: &str, used: &[(&str, u64)], anywhere: u64) -> Ipam {
    let used = used.iter().map(|(address, generation)| (ip(address), *generation));
    Ipam::resume(&cidrs(&[cidr]), used, anywhere)
}

#[test]
fn goes_on_far_behind_the_youngest_and_comes_round() {
    let mut ipam = resumed("10.0.0.0/28", &[("10.0.0.12", 4), ("10.0.0.4", 9)], 0);
    let next: Vec<IpAddr> = (0..11).map(|_| ipam.allocate(&[]).unwrap()[0]).collect();
    let want = [8, 9, 10, 11, 13, 14, 2, 3, 5, 6, 7].map(|n| ip(&format!("10.0.0.{n}")));
    assert_eq!(next, want);
    assert!(ipam.allocate(&[]).is_err());
}

/// The highest was freed a moment before the agent started again.
#[test]
fn what_was_freed_before_a_restart_is_not_the_next() {
    let used: Vec<(String, u64)> = (2..10).map(|n| (format!("10.0.0.{n}"), n)).collect();
    let used: Vec<(&str, u64)> = used.iter().map(|(a, n)| (a.as_str(), *n)).collect();
    let mut ipam = resumed("10.0.0.0/24", &used, 0);
    for _ in 0..100 {
        assert_ne!(ipam.allocate(&[]).unwrap(), [ip("10.0.0.10")]);
    }
    let first = |anywhere| resumed("10.0.0.0/24", &[], anywhere).allocate(&[]).unwrap()[0];
    assert_eq!([first(0), first(252), first(253)], ["10.0.0.2", "10.0.0.254", "10.0.0.2"].map(ip));
}

#[test]
fn what_was_never_used_comes_before_what_was_freed() {
    let mut ipam = resumed("10.0.0.0/29", &[("10.0.0.5", 1)], 0);
    assert_eq!(ipam.allocate(&[]).unwrap(), [ip("10.0.0.2")]);
    ipam.free(ip("10.0.0.2"));
    ipam.free(ip("10.0.0.5"));
    let next: Vec<IpAddr> = (0..5).map(|_| ipam.allocate(&[]).unwrap()[0]).collect();
    assert_eq!(next, [3, 4, 6, 2, 5].map(|n| ip(&format!("10.0.0.{n}"))));
}

#[test]
fn an_address_that_is_asked_for_is_given_or_the_reason_is_clear() {
    let networks = cidrs(&["10.0.0.0/29", "fd00::/64"]);
    let mut ipam = Ipam::new(&networks);
    let got = ipam.allocate(&[ip("fd00::77"), ip("10.0.0.5")]).unwrap();
    assert_eq!(got, [ip("10.0.0.5"), ip("fd00::77")]);
    assert_eq!(ipam.allocate(&[ip("fd00::78")]).unwrap(), [ip("10.0.0.2"), ip("fd00::78")]);
    let before: Vec<usize> = ipam.usage().iter().map(|usage| usage.used).collect();
    for (asked, why) in [
        (vec!["10.0.0.5"], "10.0.0.5 is in use"),
        (vec!["10.0.0.0"], "the address of the network of 10.0.0.0/29"),
        (vec!["10.0.0.1"], "the node's own address of 10.0.0.0/29"),
        (vec!["10.0.0.7"], "the broadcast address of 10.0.0.0/29"),
        (vec!["fd00::"], "the address of the network of fd00::/64"),
        (vec!["10.0.1.5"], "10.0.1.5 is in none of the pod networks of this node (10.0.0.0/29, fd"),
        (vec!["10.0.0.3", "10.0.0.4"], "10.0.0.3 and 10.0.0.4 are of one family"),
        (vec!["10.0.0.3", "fd00::77"], "fd00::77 is in use"),
    ] {
        let asked: Vec<IpAddr> = asked.into_iter().map(ip).collect();
        let error = ipam.allocate(&asked).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let after: Vec<usize> = ipam.usage().iter().map(|usage| usage.used).collect();
    assert_eq!(before, after);
    // Free for a moment only, and asked for: given at once. Then it goes to the end of the queue.
    ipam.free(ip("10.0.0.5"));
    assert_eq!(ipam.allocate(&[ip("10.0.0.5")]).unwrap()[0], ip("10.0.0.5"));
}

#[test]
fn an_address_that_no_pod_can_have_is_not_kept_for_pods() {
    let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/24"]));
    ipam.reserve(ip("10.0.0.7"));
    ipam.set_cidrs(&cidrs(&["10.0.0.0/29"]));
    ipam.free(ip("10.0.0.7"));
    let got: Vec<IpAddr> =
        std::iter::from_fn(|| ipam.allocate(&[]).ok()).map(|addresses| addresses[0]).collect();
    assert_eq!(got, [2, 3, 4, 5, 6].map(|n| ip(&format!("10.0.0.{n}"))));
}

#[test]
fn networks_change_and_pods_keep_their_addresses() {
    let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/29"]));
    let first = ipam.allocate(&[]).unwrap()[0];
    ipam.set_cidrs(&cidrs(&["10.1.0.0/29"]));
    assert_eq!(ipam.allocate(&[]).unwrap(), [ip("10.1.0.2")]);
    ipam.set_cidrs(&cidrs(&["10.0.0.0/29", "10.1.0.0/29"]));
    assert_eq!(ipam.usage().iter().map(|u| u.used).collect::<Vec<_>>(), [1, 1]);
    ipam.free(first);
    assert_eq!(ipam.usage()[0].used, 0);
}

#[test]
fn warns_from_four_fifths() {
    let usage = |used| Usage { cidr: "10.0.0.0/24".parse().unwrap(), used, capacity: 10 };
    assert!(!usage(7).is_high() && usage(8).is_high());
}

proptest! {
    #[test]
    fn never_twice_and_never_reserved(steps in proptest::collection::vec(any::<bool>(), 0..200)) {
        let mut ipam = Ipam::new(&cidrs(&["10.0.0.0/28", "fd00::/124"]));
        let mut live: Vec<Vec<IpAddr>> = Vec::new();
        for add in steps {
            if add {
                if let Ok(new) = ipam.allocate(&[]) {
                    for address in &new {
                        prop_assert!(live.iter().all(|other| !other.contains(address)));
                        let text = address.to_string();
                        prop_assert!(!["10.0.0.0", "10.0.0.1", "10.0.0.15", "fd00::", "fd00::1"]
                            .contains(&text.as_str()));
                    }
                    live.push(new);
                } else {
                    prop_assert_eq!(live.len(), 13);
                }
            } else if !live.is_empty() {
                for address in live.remove(0) {
                    ipam.free(address);
                }
            }
        }
    }
}
