//! How long packets of pods may be before the kernel segments them.
//!
//! The size belongs to the device that a socket's packets leave by, the pod's end of its veth. A device further on
//! that takes less has each such packet split in software, which costs more than small packets would have.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_shim::names::BigTcp;
use dataplane_core::upper::{IPV6_MTU_MIN, JUMBO_LEN};

use crate::advice::Advice;
use crate::kernel::{
    AGGREGATE_MAX, Aggregates, AllRaised, LEGACY_MAX, Link, Medium, Observed, Raised,
};
use crate::model::{BigTcpMode, Encapsulation, Model, is_pod_interface};

/// Addresses for documentation (RFC 5737, RFC 3849), to which only the way to the world leads.
pub(super) const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What is chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chosen {
    /// Of pods that are made from now on.
    pub pods: BigTcp,
    /// For people.
    pub why: String,
    /// What is to be written down before an uplink is changed, and until it is as it was.
    pub raised: AllRaised,
    /// What the uplinks are to have.
    pub uplinks: BTreeMap<String, Aggregates>,
}

/// Whether it matters how packets leave for the world.
pub(super) fn asks_for_world(model: &Model) -> bool {
    let network = &model.network;
    network.encapsulation == Encapsulation::Direct && network.big_tcp != BigTcpMode::Off
}

/// Chooses, for pods with this MTU.
pub(super) fn choose(
    model: &Model,
    uplinks: &[&Link],
    observed: &Observed,
    pod_mtu: u32,
) -> Chosen {
    let mut chosen = match (model.network.big_tcp, model.network.encapsulation) {
        (BigTcpMode::Off, _) => off("--big-tcp off"),
        (_, Encapsulation::Vxlan | Encapsulation::Auto) => {
            off("packets may go through VXLAN, which takes no larger ones")
        }
        (BigTcpMode::Auto, Encapsulation::Direct) => smallest(model, uplinks, observed),
        (BigTcpMode::On, Encapsulation::Direct) => raise(model, uplinks),
    };
    if chosen.pods.ipv6.is_some()
        && let Some(narrow) = narrow_for_ipv6(observed, pod_mtu)
    {
        chosen.pods.ipv6 = None;
        chosen.why = format!("{}; IPv6 is left out: {narrow}", chosen.why);
    }
    put_back(&mut chosen, model, observed);
    chosen
}

/// What the host forwards larger packets of IPv6 to in vain. The kernel counts the header of a jumbogram as part of
/// each segment then (`skb_gso_network_seglen`, as of 6.18), and says that segments made for the path do not fit:
/// the sender lowers its MTU to what is said, and is told the same again. Pods have 8 bytes to spare for that
/// header, on the way that has their MTU.
fn narrow_for_ipv6(observed: &Observed, pod_mtu: u32) -> Option<String> {
    if pod_mtu < IPV6_MTU_MIN + JUMBO_LEN {
        return Some(format!("with an MTU of {pod_mtu} there is no room for what it needs"));
    }
    let has_ipv6 = |link: &Link| link.addresses.iter().any(|net| !net.addr().is_ipv4());
    let links = observed.interfaces.values().filter(|link| !is_pod_interface(&link.name));
    let mut links = links.filter(|link| match link.medium {
        Medium::Ethernet => has_ipv6(link),
        Medium::Bare => true,
        Medium::Nothing => false,
    });
    if let Some(link) = links.find(|link| link.up && link.mtu < pod_mtu) {
        let (name, mtu) = (&link.name, link.mtu);
        return Some(format!("{name} has an MTU of {mtu}, and the kernel forwards none there"));
    }
    let [_, world] = WORLD;
    let mtu = observed.peer_routes.get(&world)?.mtu.filter(|mtu| *mtu < pod_mtu)?;
    Some(format!("the default route has an MTU of {mtu}, and the kernel forwards none there"))
}

/// What an operator should know of pods that were made when larger packets were taken.
pub(super) fn problem(uplinks: &[&Link], observed: &Observed) -> Option<String> {
    let narrow = uplinks.iter().find(|uplink| larger_pods(observed, &uplink.aggregates) > 0)?;
    let count = larger_pods(observed, &narrow.aggregates);
    let found = format!(
        "{count} pods were made to send larger packets than the uplink {} takes: the kernel splits them \
         in software, which is slow",
        narrow.name
    );
    Some(Advice::new(found, "make these pods anew, or let the uplink take them again").to_string())
}

fn off(why: impl Into<String>) -> Chosen {
    Chosen { why: format!("off: {}", why.into()), ..Chosen::default() }
}

/// `auto`: what the smallest device on the way takes, per family.
fn smallest(model: &Model, uplinks: &[&Link], observed: &Observed) -> Chosen {
    let [world4, world6] = WORLD;
    let narrowest = |other_world: IpAddr, size: fn(&Aggregates) -> u32| {
        let routes = observed.peer_routes.iter().filter(|(to, _)| **to != other_world);
        let hops = routes.flat_map(|(_, route)| &route.hops);
        let hops = hops.filter_map(|hop| observed.interfaces.get(&hop.device));
        let links = hops.chain(uplinks.iter().copied());
        // What we raised ourselves is about to be put back.
        let taken = |link: &Link| ours(model, link).map_or(link.aggregates, |raised| raised.before);
        let links = links.filter(|link| link.medium != Medium::Nothing);
        links.map(|link| (size(&taken(link)), link.name.as_str())).min()
    };
    let ipv4 = narrowest(world6, |sizes| sizes.gso_ipv4);
    let ipv6 = narrowest(world4, |sizes| sizes.gso);
    let (Some(ipv4), Some(ipv6)) = (ipv4, ipv6) else { return off("there is no uplink") };
    let larger = |(size, _): (u32, &str)| (size > LEGACY_MAX).then_some(size.min(AGGREGATE_MAX));
    let pods = BigTcp { ipv4: larger(ipv4), ipv6: larger(ipv6) };
    let text = |family: &str, (size, name): (u32, &str)| format!("{name} takes {size} of {family}");
    let why = format!("{}, {}", text("IPv4", ipv4), text("IPv6", ipv6));
    if pods.is_off() { off(why) } else { Chosen { pods, why, ..Chosen::default() } }
}

/// `on`: what all uplinks can take.
fn raise(model: &Model, uplinks: &[&Link]) -> Chosen {
    let most = |link: &&&Link| link.aggregates_max;
    let Some(least) = uplinks.iter().min_by_key(most) else { return off("there is no uplink") };
    let size = least.aggregates_max.min(AGGREGATE_MAX);
    if size <= LEGACY_MAX {
        return off(format!("the device {} can take {size} and no more", least.name));
    }
    let mut chosen = Chosen::default();
    for link in uplinks {
        let written = model.raised.get(&link.name).filter(|raised| raised.ifindex == link.ifindex);
        let before = written.map_or(link.aggregates, |raised| raised.before);
        let set = Aggregates {
            gso: before.gso.max(size),
            // Not of IPv6: what is put together of packets that the host forwards would be too big for it, as
            // it takes the jumbogram's header for part of each segment (`skb_gso_network_seglen`, as of 6.18).
            gro: before.gro,
            gso_ipv4: before.gso_ipv4.max(size),
            gro_ipv4: before.gro_ipv4.max(size),
        };
        if set != before {
            let raised = Raised { ifindex: link.ifindex, before, set };
            chosen.raised.insert(link.name.clone(), raised);
            chosen.uplinks.insert(link.name.clone(), set);
        }
    }
    let is_there =
        |link: &&Link| chosen.uplinks.get(&link.name).is_none_or(|set| link.aggregates == *set);
    if !uplinks.iter().all(is_there) {
        "off: the uplinks do not take larger packets yet".clone_into(&mut chosen.why);
        return chosen;
    }
    chosen.pods = BigTcp { ipv4: Some(size), ipv6: Some(size) };
    let raised: Vec<&str> = chosen.raised.keys().map(String::as_str).collect();
    chosen.why = match raised.is_empty() {
        true => "--big-tcp on".to_owned(),
        false => format!("--big-tcp on; {} was raised for it", raised.join(", ")),
    };
    chosen
}

/// Uplinks that need not be raised any more get back what they had, unless somebody else has changed them since.
/// They stay raised while pods live that send larger packets: a pod's end of its veth is out of reach.
fn put_back(chosen: &mut Chosen, model: &Model, observed: &Observed) {
    for (name, raised) in &model.raised {
        let link = observed.interfaces.get(name).filter(|link| ours(model, link).is_some());
        if chosen.raised.contains_key(name) || link.is_none() {
            continue;
        }
        chosen.raised.insert(name.clone(), *raised);
        let pods = larger_pods(observed, &raised.before);
        if pods == 0 {
            chosen.uplinks.insert(name.clone(), raised.before);
        } else {
            let until =
                format!("; {name} stays raised until {pods} pods with larger packets are gone");
            chosen.why.push_str(&until);
        }
    }
}

/// What is written down of an interface that is as we made it.
fn ours<'a>(model: &'a Model, link: &Link) -> Option<&'a Raised> {
    let raised = model.raised.get(&link.name)?;
    raised.is_ours(link.ifindex, &link.aggregates).then_some(raised)
}

/// Pods that send larger packets than a device takes. Both ends of a pod's veth are made alike, and nobody else
/// changes them.
fn larger_pods(observed: &Observed, taken: &Aggregates) -> usize {
    let is_larger = |size: u32, taken: u32| size > LEGACY_MAX && size > taken;
    let pods = observed.interfaces.values().filter(|link| is_pod_interface(&link.name));
    pods.filter(|pod| {
        is_larger(pod.aggregates.gso, taken.gso)
            || is_larger(pod.aggregates.gso_ipv4, taken.gso_ipv4)
    })
    .count()
}

#[cfg(test)]
mod tests;
