//! What other networks have left on the node, each with how to remove it.

mod known;
mod programs;

use std::path::{Path, PathBuf};

use self::known::{KNOWN, Known, matches_one};
use super::finding::Finding;
use super::node::Node;
use crate::advice::Advice;
use crate::install::{CONFIGURATION, configurations, rival};
use crate::kernel::live::probe::devices::Device;
use crate::kernel::live::probe::firewall::Firewall;
use crate::kernel::live::probe::pins;

/// Where runtimes look unless told otherwise.
const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// A device of the module `ipip` in every network namespace; only with an address is it somebody's.
const TUNNEL_OF_MODULE: &str = "tunl0";
/// More than these are not named one by one.
const NAMED_MAX: usize = 6;

pub(super) async fn examine(node: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = bpffs_root(&node.around.bpffs);
    for known in &KNOWN {
        findings.extend(devices(known, node.devices.values()));
        if let Ok(firewall) = &node.firewall {
            findings.extend(chains(known, firewall));
            findings.extend(tables(known, firewall));
        }
        findings.extend(pinned(known, &root, pins::names));
    }
    findings.extend(ip_in_ip(node.devices.get(TUNNEL_OF_MODULE)));
    findings.extend(programs::examine(node).await);
    if findings.is_empty() {
        findings.push(Finding::ok("other networks", "nothing of theirs is on this node"));
    }
    let given = node.around.install.configurations.clone();
    findings
        .extend(networks(given.as_deref().unwrap_or(Path::new(CONFIGURATIONS)), given.is_some()));
    findings
}

fn check_of(known: &Known) -> String {
    format!("leftovers of {}", known.name)
}

fn devices<'a>(known: &Known, all: impl Iterator<Item = &'a Device>) -> Option<Finding> {
    let names: Vec<&str> = all
        .map(|device| device.link.name.as_str())
        .filter(|name| matches_one(known.devices, name))
        .collect();
    if names.is_empty() {
        return None;
    }
    let commands: Vec<String> =
        names.iter().take(NAMED_MAX).map(|name| format!("`ip link delete {name}`")).collect();
    let found = format!("devices {}", shortened(&names));
    let remedy = format!("when no pod uses them any more: {}{}", commands.join(", "), rest(&names));
    Some(Finding::warning(check_of(known), Advice::new(found, remedy)))
}

fn chains(known: &Known, firewall: &Firewall) -> Option<Finding> {
    let all = firewall
        .chains
        .iter()
        .filter(|chain| known.chains.iter().any(|start| chain.name.starts_with(start)));
    let mut names: Vec<&str> = all.map(|chain| chain.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let is_found = |start: &&&str| names.iter().any(|name| name.starts_with(**start));
    let starts: String =
        known.chains.iter().filter(is_found).map(|start| format!(" -e '{start}'")).collect();
    if starts.is_empty() {
        return None;
    }
    let command = |tool: &str| format!("`{tool}-save | grep -v{starts} | {tool}-restore`");
    let found = format!("chains {}", shortened(&names));
    let remedy = format!("{} and {}", command("iptables"), command("ip6tables"));
    Some(Finding::warning(check_of(known), Advice::new(found, remedy)))
}

fn tables(known: &Known, firewall: &Firewall) -> Option<Finding> {
    let all = firewall.tables.iter().filter(|(_, name)| known.tables.contains(&name.as_str()));
    let names: Vec<String> = all.map(|(family, name)| format!("{family} {name}")).collect();
    if names.is_empty() {
        return None;
    }
    let commands: Vec<String> =
        names.iter().map(|name| format!("`nft delete table {name}`")).collect();
    let found = format!("nftables tables {}", names.join(", "));
    Some(Finding::warning(check_of(known), Advice::new(found, commands.join(", "))))
}

/// Pins keep programs and maps in the kernel.
fn pinned(known: &Known, root: &Path, list: impl Fn(&Path) -> Vec<String>) -> Option<Finding> {
    let mut paths = Vec::new();
    for pattern in known.pins {
        let pattern = Path::new(pattern);
        let directory = root.join(pattern.parent().unwrap_or(Path::new("")));
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let names = list(&directory).into_iter().filter(|found| matches_one(&[name], found));
        if let Some(first) = names.min() {
            let shown = if name.ends_with('*') { name } else { &first };
            paths.push(directory.join(shown).display().to_string());
        }
    }
    if paths.is_empty() {
        return None;
    }
    let remedy = format!("`rm -r {}`", paths.join(" "));
    Some(Finding::warning(
        check_of(known),
        Advice::new(format!("pinned programs and maps: {}", paths.join(", ")), remedy),
    ))
}

fn ip_in_ip(device: Option<&Device>) -> Option<Finding> {
    let device = device.filter(|device| !device.link.addresses.is_empty())?;
    let name = &device.link.name;
    let found = format!("{name} has addresses, as Calico and kube-router give it");
    let remedy = format!("when no pod needs it any more: `ip address flush dev {name}`");
    Some(Finding::warning("leftovers of IP in IP", Advice::new(found, remedy)))
}

/// What the container runtime has to choose from: it takes the first.
fn networks(directory: &Path, is_given: bool) -> Option<Finding> {
    let check = "network configurations";
    match configurations(directory) {
        Ok(names) => judge_networks(directory, &names),
        Err(error) if is_given => {
            Some(Finding::unseen(check, format!("{}: {error}", directory.display())))
        }
        Err(_) => None,
    }
}

fn judge_networks(directory: &Path, names: &[String]) -> Option<Finding> {
    let check = "network configurations";
    let first = names.first()?;
    if first.as_str() < CONFIGURATION {
        return Some(Finding::warning(check, rival(directory, first)));
    }
    let others: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| *name != CONFIGURATION).collect();
    if others.is_empty() {
        return Some(Finding::ok(check, directory.join(CONFIGURATION).display().to_string()));
    }
    let place = directory.display();
    let found = format!(
        "{} in {place} beside ours: the container runtime takes the first",
        shortened(&others)
    );
    let files =
        others.iter().take(NAMED_MAX).map(|name| directory.join(name).display().to_string());
    let remedy = format!(
        "nothing, while {CONFIGURATION} is there; when no pod uses them any more: `rm {}`",
        files.collect::<Vec<_>>().join(" ")
    );
    Some(Finding::new(check, super::Severity::Note, found, Some(remedy)))
}

/// That of a directory for pins: the filesystem is mounted at `/sys/fs/bpf`, or above the directory.
fn bpffs_root(bpffs: &Path) -> PathBuf {
    let usual = Path::new("/sys/fs/bpf");
    if bpffs.starts_with(usual) {
        return usual.to_owned();
    }
    bpffs.parent().unwrap_or(bpffs).to_owned()
}

fn shortened(names: &[&str]) -> String {
    let named = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    format!("{named}{}", rest(names))
}

fn rest(names: &[&str]) -> String {
    match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} others"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::fake;
    use crate::kernel::live::probe::firewall::Chain;

    fn known(name: &str) -> &'static Known {
        KNOWN.iter().find(|known| known.name == name).unwrap()
    }

    fn device(name: &str) -> Device {
        let link = fake::link(name, 3, 1500, &[]);
        Device { link, vxlan_port: None, xdp: None }
    }

    #[test]
    fn devices_of_other_networks_are_named_with_their_removal() {
        let all = ["lo", "eth0", "podwire0", "docker0", "cni0", "flannel.1"].map(device);
        let finding = devices(known("Flannel"), all.iter()).unwrap();
        assert_eq!(finding.found, "devices flannel.1");
        assert!(finding.remedy.unwrap().ends_with("`ip link delete flannel.1`"));
        assert_eq!(devices(known("a bridge"), all.iter()).unwrap().found, "devices cni0");
        let silent = KNOWN.iter().filter(|known| !["Flannel", "a bridge"].contains(&known.name));
        for known in silent {
            assert_eq!(devices(known, all.iter()), None);
        }
        let many: Vec<Device> = (0..9).map(|n| device(&format!("cali{n}"))).collect();
        let finding = devices(known("Calico"), many.iter()).unwrap();
        assert!(finding.found.ends_with("cali5 and 3 others"), "{}", finding.found);
    }

    #[test]
    fn chains_and_tables_are_named_with_their_removal() {
        let chain = |name: &str| Chain { name: name.into(), ..Chain::default() };
        let firewall = Firewall {
            tables: vec![("ip".into(), "flannel-ipv4".into()), ("inet".into(), "podwire".into())],
            chains: ["FORWARD", "CILIUM_INPUT", "CILIUM_INPUT", "OLD_CILIUM_POST"]
                .map(chain)
                .into(),
            ..Firewall::default()
        };
        let finding = chains(known("Cilium"), &firewall).unwrap();
        assert_eq!(finding.found, "chains CILIUM_INPUT, OLD_CILIUM_POST");
        let remedy = finding.remedy.unwrap();
        assert!(
            remedy.contains(
                "iptables-save | grep -v -e 'CILIUM_' -e 'OLD_CILIUM_' | iptables-restore"
            ),
            "{remedy}"
        );
        let finding = tables(known("Flannel"), &firewall).unwrap();
        assert_eq!(finding.remedy.unwrap(), "`nft delete table ip flannel-ipv4`");
        assert_eq!(chains(known("Calico"), &firewall), None);
    }

    #[test]
    fn pins_are_named_with_their_removal() {
        let list = |directory: &Path| {
            let names: &[&str] = if directory.ends_with("tc/globals") {
                &["cilium_calls", "cilium_lxc", "mine"]
            } else {
                &["cilium", "podwire", "tc"]
            };
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let root = Path::new("/sys/fs/bpf");
        let remedy = pinned(known("Cilium"), root, list).unwrap().remedy.unwrap();
        assert_eq!(remedy, "`rm -r /sys/fs/bpf/cilium /sys/fs/bpf/tc/globals/cilium_*`");
        assert_eq!(pinned(known("Calico"), root, list), None);
        assert_eq!(bpffs_root(Path::new("/sys/fs/bpf/podwire")), root);
        assert_eq!(bpffs_root(Path::new("/mnt/bpf/podwire")), Path::new("/mnt/bpf"));
    }

    #[test]
    fn the_runtime_takes_the_first_configuration() {
        let judge = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            judge_networks(Path::new("/etc/cni/net.d"), &names)
        };
        let finding = judge(&["00-calico.conflist", CONFIGURATION]).unwrap();
        assert_eq!(finding.state, Severity::Warning);
        assert!(finding.found.contains("takes /etc/cni/net.d/00-calico.conflist"), "{finding:?}");
        let finding = judge(&[CONFIGURATION, "10-flannel.conflist"]).unwrap();
        assert_eq!(finding.state, Severity::Note);
        assert!(finding.remedy.unwrap().contains("`rm /etc/cni/net.d/10-flannel.conflist`"));
        assert_eq!(judge(&[CONFIGURATION]).unwrap().state, Severity::Ok);
        assert_eq!(judge(&[]), None);
    }

    #[test]
    fn a_tunnel_without_addresses_is_only_a_module() {
        let mut tunnel = device(TUNNEL_OF_MODULE);
        assert_eq!(ip_in_ip(Some(&tunnel)), None);
        tunnel.link.addresses.push("10.244.1.0/32".parse().unwrap());
        assert!(ip_in_ip(Some(&tunnel)).unwrap().remedy.unwrap().contains("flush dev tunl0"));
    }
}
