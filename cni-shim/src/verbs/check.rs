//! CHECK: compares the result of ADD with the kernel. Needs no agent, as forwarding needs none.

use std::net::IpAddr;
use std::path::Path;

use dataplane_core::abi::config::GATEWAY_MAC;

use crate::agent;
use crate::error::{CHECK_FAILED, Context as _, DECODE, INVALID_CONFIG, failure};
use crate::ipam;
use crate::kernel::{self, Netlink, PodFacts};
use crate::names::{Hook, Pins};
use crate::protocol::Failure;
use crate::request::{Config, Environment};
use crate::result::{AddResult, gateway, mac_text};

/// Checks that an attachment is as ADD left it; names the first difference.
pub(crate) fn check(environment: &Environment, config: &Config) -> Result<(), Failure> {
    let attachment = environment.attachment()?;
    let netns = kernel::open_namespace(Path::new(environment.netns()?))?;
    let Some(previous) = config.prev_result.clone() else {
        return Err(failure(INVALID_CONFIG, "\"prevResult\" is missing", "CHECK needs it"));
    };
    let previous: AddResult =
        serde_json::from_value(previous).context(DECODE, || "read \"prevResult\"".into())?;
    ipam::check(environment, config)?;
    let socket = config.socket();
    let _lock = crate::lock::take(&attachment, &socket)?;
    let pins = Pins(agent::plugin_file(&socket)?.bpffs);
    let addresses = pod_addresses(&previous, &attachment.ifname)?;

    let ifname = attachment.ifname.clone();
    let pod = kernel::inside(&netns, move |netlink| netlink.pod_facts(&ifname))?
        .ok_or_else(|| differs(format!("{} is gone from the container", attachment.ifname)))?;
    let host_ifname = attachment.host_ifname();
    let host = Netlink::open()?
        .link(&host_ifname)?
        .ok_or_else(|| differs(format!("the host side {host_ifname} is gone")))?;
    expect(&format!("{host_ifname} is up"), &true, &host.up)?;
    expect(&format!("MAC of {host_ifname}"), &mac_text(GATEWAY_MAC.octets), &mac_text(host.mac))?;
    expect(&format!("MTU of {host_ifname}"), &pod.link.mtu, &host.mtu)?;
    pod_side(&pod, &addresses, &previous, &attachment.ifname)?;
    for (hook, what) in [(Hook::Ingress, "ingress"), (Hook::Egress, "egress")] {
        let (wanted, attached) = kernel::programs(&pins, &host_ifname, hook)?;
        if !attached.contains(&wanted) {
            return Err(differs(format!(
                "program {wanted} is not attached to {host_ifname} at {what}: {attached:?} are"
            )));
        }
    }
    for ip in addresses {
        let entry = kernel::pod_entry(&pins, ip)?
            .ok_or_else(|| differs(format!("{ip} is not in the map pw_pods")))?;
        expect(&format!("interface of {ip} in pw_pods"), &host.ifindex, &entry.ifindex)?;
        expect(
            &format!("MAC of {ip} in pw_pods"),
            &mac_text(pod.link.mac),
            &mac_text(entry.mac.octets),
        )?;
    }
    Ok(())
}

fn pod_side(
    pod: &PodFacts,
    addresses: &[IpAddr],
    previous: &AddResult,
    ifname: &str,
) -> Result<(), Failure> {
    expect(&format!("{ifname} is up"), &true, &pod.link.up)?;
    let ours = previous
        .interfaces
        .iter()
        .find(|interface| !interface.sandbox.is_empty() && interface.name == ifname);
    if let Some(interface) = ours {
        expect(
            &format!("MAC of {ifname}"),
            &interface.mac.to_lowercase(),
            &mac_text(pod.link.mac),
        )?;
    }
    for ip in addresses {
        if !pod.addresses.contains(ip) {
            return Err(differs(format!("{ip} is not on {ifname}")));
        }
        let gateway = gateway(*ip);
        let has_default =
            previous.routes.iter().any(|route| route.dst == crate::result::everywhere(*ip));
        if has_default && !pod.default_gateways.contains(&gateway) {
            return Err(differs(format!("the default route by {gateway} is gone")));
        }
        match pod.neighbours.get(&gateway) {
            Some(mac) => expect(
                &format!("neighbour {gateway}"),
                &mac_text(GATEWAY_MAC.octets),
                &mac_text(*mac),
            )?,
            None => return Err(differs(format!("the neighbour entry of {gateway} is gone"))),
        }
    }
    Ok(())
}

/// The addresses that ADD gave to our interface.
fn pod_addresses(previous: &AddResult, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let ours = |index: Option<usize>| match index.and_then(|index| previous.interfaces.get(index)) {
        Some(interface) => interface.name == ifname,
        None => false,
    };
    let addresses: Vec<IpAddr> =
        previous.ips.iter().filter(|ip| ours(ip.interface)).map(|ip| ip.address.addr()).collect();
    if addresses.is_empty() {
        return Err(failure(
            INVALID_CONFIG,
            format!("\"prevResult\" has no address of {ifname}"),
            "it must be the result of ADD",
        ));
    }
    Ok(addresses)
}

fn expect<T: PartialEq + std::fmt::Display>(
    what: &str,
    wanted: &T,
    found: &T,
) -> Result<(), Failure> {
    if wanted == found {
        return Ok(());
    }
    Err(differs(format!("{what}: {found}, not {wanted}")))
}

fn differs(details: String) -> Failure {
    failure(CHECK_FAILED, "the attachment is not as ADD left it", details)
}
