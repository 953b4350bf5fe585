//! The nftables table, through `nft`: one transaction replaces it whole.
//!
//! What is masqueraded, and why: see [`ruleset`].

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use ipnet::IpNet;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::Instant;

use super::error::{Context as _, refusal};
use super::preflight::{Fault, fault};
use super::question::ask;
use crate::kernel::{HOST_DEVICE, KernelError, NFT_TABLE, NftRules, TUNNEL_DEVICE};

/// Where `nft` may be when `PATH` of a service does not say so.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// `NFT_MSG_GETGEN` of `NFNL_SUBSYS_NFTABLES`, and the attribute of its answer, `NFTA_GEN_ID` (Linux 3.18).
const GET_GENERATION: u16 = 10 << 8 | 16;
const GENERATION: u16 = 1;

/// The kernel raises the number of the generation a moment before its rules are there (`nf_tables_commit`): who lists
/// in that moment has the old rules with the new number, and must look again some time.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// The table as it was put last.
#[derive(Default)]
pub(super) struct Nft {
    put: Option<Put>,
}

/// A table that was as it should be.
struct Put {
    rules: NftRules,
    listing: String,
    /// That of the rules at the listing, if the kernel tells.
    generation: Option<Vec<u8>>,
    listed: Instant,
}

impl Nft {
    /// The rules of the table; rules that nobody wants when it is not as this process put it.
    ///
    /// To list it takes a process, and three quarters of the time of a whole look.
    pub(super) async fn observe(&mut self) -> Result<Option<NftRules>, KernelError> {
        let now = generation();
        if let Some(put) = &self.put
            && now.is_some()
            && put.generation == now
            && put.listed.elapsed() < LIST_EVERY
        {
            return Ok(Some(put.rules.clone()));
        }
        let Some(listing) = list().await? else { return Ok(None) };
        Ok(Some(match &mut self.put {
            Some(put) if put.listing == listing => {
                (put.generation, put.listed) = (now, Instant::now());
                put.rules.clone()
            }
            Some(_) | None => unwanted(),
        }))
    }

    pub(super) async fn put(&mut self, rules: &NftRules) -> Result<(), KernelError> {
        self.put = None;
        nft(&["-f", "-"], &ruleset(rules)).await?;
        let generation = generation();
        let listed = Instant::now();
        let put = |listing| Put { rules: rules.clone(), listing, generation, listed };
        self.put = list().await?.map(put);
        Ok(())
    }

    pub(super) async fn remove(&mut self) -> Result<(), KernelError> {
        self.put = None;
        let text = format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n");
        nft(&["-f", "-"], &text).await.map(drop)
    }
}

/// A number that is another one after each transaction on the namespace's tables, by whomever. What changes without
/// one, such as elements that time out, our table does not have.
fn generation() -> Option<Vec<u8>> {
    ask(&Socket::new(NETLINK_NETFILTER).ok()?, GET_GENERATION, GENERATION).ok()
}

/// Finds `nft`.
pub(super) fn executable() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join("nft"))
        .find(|file| file.is_file())
}

/// What to say when it is not there.
pub(super) fn missing() -> Fault {
    fault(
        "find the program `nft`",
        "it is in none of the directories of PATH",
        "install nftables (`apt-get install nftables`)",
    )
}

/// Whether `nft` and kernel take a table as ours is: nothing is changed.
pub(super) async fn check() -> Result<(), KernelError> {
    nft(&["--check", "-f", "-"], &ruleset(&example())).await.map(drop)
}

/// All kinds of rules, of addresses that are kept for documentation (RFC 5737 and 3849).
fn example() -> NftRules {
    let nets = |texts: [&str; 2]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    let ips = |texts: [&str; 2]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    NftRules {
        pods: nets(["192.0.2.0/26", "2001:db8:1::/64"]),
        cluster: nets(["192.0.2.0/24", "2001:db8::/32"]),
        nodes: ips(["198.51.100.1", "2001:db8:ffff::1"]),
        own: ips(["198.51.100.1", "2001:db8:ffff::1"]),
        tunnel_port: Some(1),
    }
}

/// Port 0 is no port of a tunnel.
fn unwanted() -> NftRules {
    NftRules {
        pods: BTreeSet::new(),
        cluster: BTreeSet::new(),
        nodes: BTreeSet::new(),
        own: BTreeSet::new(),
        tunnel_port: Some(0),
    }
}

/// The table without its counters.
pub(super) async fn list() -> Result<Option<String>, KernelError> {
    let output = run(&["-s", "list", "table", "inet", NFT_TABLE], "").await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else if complaint.contains("No such file or directory") {
        Ok(None)
    } else {
        Err(refusal(format!("list the nftables table {NFT_TABLE}"), complaint.trim()))
    }
}

async fn nft(arguments: &[&str], input: &str) -> Result<String, KernelError> {
    let output = run(arguments, input).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(refusal(format!("nft {} (table {NFT_TABLE})", arguments.join(" ")), complaint.trim()))
}

async fn run(arguments: &[&str], input: &str) -> Result<Output, KernelError> {
    let what = || format!("run nft {}", arguments.join(" "));
    let mut child = Command::new(executable().ok_or_else(missing)?)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.context(what)?;
    }
    child.wait_with_output().await.context(what)
}

/// The transaction.
///
/// - What leaves the cluster gets the node's address. A pod's packet to its own node is input and
///   not touched; one to another node's address leaves by the uplink and is masqueraded.
/// - Pods behind an address that somebody translates (cluster IPs of kube-proxy, hostPort): our
///   direct path skips connection tracking, so the answer must come back through this node, which
///   it does when the source is this node's address among the pods. IPVS does not say that it
///   translated, but the destination that the connection began with does.
/// - Packets between tunnels are not tracked: each end believes them by their sender and nothing else.
///   All that arrives through the tunnel passes the chain `arrival`, which is done with it early.
/// - Nothing enters the stack by the tunnel device itself: what `pw_from_tunnel` believes, it hands to a
///   pod or to `podwire0`. So nothing enters while the program is not there.
/// - Packets of this node's pods enter by `podwire0` only: a stranger who takes such a source would have
///   his packets forwarded, and sent through the tunnel as this node's.
/// - Pods must not reach another node's tunnel port, also not by an address that is translated to it
///   (by IPVS even behind the forward hook): before their source becomes this node's. This node's own
///   takes no packet whose sender is not a node.
fn ruleset(rules: &NftRules) -> String {
    let mut text = format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n");
    let mut table = Table::default();
    for family in [Family { name: "ip", suffix: '4' }, Family { name: "ip6", suffix: '6' }] {
        table.add(&family, rules);
    }
    let mut outer = String::new();
    if let Some(port) = rules.tunnel_port {
        let _ = writeln!(table.departure, "    udp dport {port} notrack");
        for ip in &rules.own {
            let name = if ip.is_ipv4() { "ip" } else { "ip6" };
            let _ = writeln!(outer, "    {name} daddr {ip} udp dport {port} notrack accept");
        }
    }
    let arrival = format!(
        "    iifname \"{TUNNEL_DEVICE}\" counter drop\n{outer}    iifname {{ \"{HOST_DEVICE}\", \"lo\" }} accept\n{}",
        table.arrival
    );
    let _ = write!(text, "table inet {NFT_TABLE} {{\n{}", table.sets);
    for (name, head, body) in [
        ("postrouting", "type nat hook postrouting priority srcnat", &table.postrouting),
        ("guard", "type filter hook postrouting priority srcnat - 1", &table.guard),
        ("arrival", "type filter hook prerouting priority raw", &arrival),
        ("departure", "type filter hook output priority raw", &table.departure),
    ] {
        if !body.is_empty() {
            let _ = write!(text, "  chain {name} {{\n    {head}; policy accept;\n{body}  }}\n");
        }
    }
    text.push_str("}\n");
    text
}

struct Family {
    /// As in a rule: `ip`, `ip6`.
    name: &'static str,
    /// Of names of sets and types of addresses.
    suffix: char,
}

#[derive(Default)]
struct Table {
    sets: String,
    postrouting: String,
    guard: String,
    arrival: String,
    departure: String,
}

impl Table {
    fn add(&mut self, family: &Family, rules: &NftRules) {
        let Family { name, suffix } = family;
        let is_ipv4 = *suffix == '4';
        let of_family = |net: &&IpNet| matches!(net, IpNet::V4(_)) == is_ipv4;
        let pods: Vec<_> = rules.pods.iter().filter(of_family).collect();
        let cluster: Vec<_> = rules.cluster.iter().filter(of_family).collect();
        let nodes: Vec<_> =
            rules.nodes.iter().filter(|ip: &&IpAddr| ip.is_ipv4() == is_ipv4).collect();
        if !pods.is_empty() {
            self.set(family, "pods", &pods);
            for net in &pods {
                let _ = writeln!(self.arrival, "    {name} saddr {net} counter drop");
            }
            let beyond = if cluster.is_empty() {
                String::new()
            } else {
                format!(" {name} daddr != @cluster{suffix}")
            };
            let _ = writeln!(
                self.postrouting,
                "    {name} saddr @pods{suffix}{beyond} oifname != \"{HOST_DEVICE}\" masquerade"
            );
        }
        if !cluster.is_empty() {
            self.set(family, "cluster", &cluster);
            let _ = writeln!(
                self.postrouting,
                "    ct status dnat {name} saddr @cluster{suffix} {name} daddr @cluster{suffix} \
                 oifname \"{HOST_DEVICE}\" masquerade\n    \
                 ct original {name} daddr != @cluster{suffix} {name} saddr @cluster{suffix} \
                 {name} daddr @cluster{suffix} oifname \"{HOST_DEVICE}\" masquerade\n    \
                 ct status dnat fib saddr type local {name} daddr @cluster{suffix} \
                 oifname \"{HOST_DEVICE}\" masquerade"
            );
        }
        if let (Some(port), false) = (rules.tunnel_port, nodes.is_empty()) {
            self.set(family, "nodes", &nodes);
            for net in &pods {
                let _ = writeln!(
                    self.guard,
                    "    {name} saddr {net} udp dport {port} {name} daddr @nodes{suffix} counter drop"
                );
            }
        }
    }

    fn set(&mut self, family: &Family, name: &str, elements: &[impl Display]) {
        let suffix = family.suffix;
        let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
        let _ = write!(
            self.sets,
            "  set {name}{suffix} {{\n    type ipv{suffix}_addr; flags interval; auto-merge;\n    \
             elements = {{ {} }}\n  }}\n",
            elements.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NftRules {
        NftRules {
            pods: ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|n| n.parse().unwrap()).into(),
            cluster: ["10.244.0.0/16", "fd00:10:244::/48"].map(|n| n.parse().unwrap()).into(),
            nodes: ["192.168.1.11", "192.168.1.12", "fd00:1::11"]
                .map(|n| n.parse().unwrap())
                .into(),
            own: ["192.168.1.11", "fd00:1::11"].map(|n| n.parse().unwrap()).into(),
            tunnel_port: Some(8472),
        }
    }

    #[test]
    fn both_families_are_masqueraded_and_the_tunnel_port_is_guarded() {
        let text = ruleset(&rules());
        assert!(text.starts_with("table inet podwire\ndelete table inet podwire\n"));
        for line in [
            "ip saddr @pods4 ip daddr != @cluster4 oifname != \"podwire0\" masquerade",
            "ip6 saddr @pods6 ip6 daddr != @cluster6 oifname != \"podwire0\" masquerade",
            "ct status dnat ip saddr @cluster4 ip daddr @cluster4 oifname \"podwire0\" masquerade",
            "ct status dnat fib saddr type local ip daddr @cluster4 oifname \"podwire0\" masquerade",
            "ip saddr 10.244.1.0/24 udp dport 8472 ip daddr @nodes4 counter drop",
            "ip6 saddr fd00:10:244:1::/64 udp dport 8472 ip6 daddr @nodes6 counter drop",
            "ct original ip daddr != @cluster4 ip saddr @cluster4 ip daddr @cluster4 oifname \"podwire0\"",
            "    iifname \"podwire-vxlan\" counter drop\n    \
             ip daddr 192.168.1.11 udp dport 8472 notrack accept\n    \
             ip6 daddr fd00:1::11 udp dport 8472 notrack accept\n    \
             iifname { \"podwire0\", \"lo\" } accept\n    \
             ip saddr 10.244.1.0/24 counter drop\n    ip6 saddr fd00:10:244:1::/64 counter drop\n",
            "priority raw; policy accept;\n    udp dport 8472 notrack\n",
            "elements = { 192.168.1.11, 192.168.1.12 }",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_has_no_elements_is_left_out() {
        let mut rules = rules();
        rules.tunnel_port = None;
        rules.cluster.clear();
        rules.pods.retain(|net| matches!(net, IpNet::V4(_)));
        let text = ruleset(&rules);
        assert!(text.contains("ip saddr @pods4 oifname != \"podwire0\" masquerade"));
        for absent in ["ip6", "cluster", "nodes", "chain guard", "notrack"] {
            assert!(!text.contains(absent), "{absent} in\n{text}");
        }
    }
}
