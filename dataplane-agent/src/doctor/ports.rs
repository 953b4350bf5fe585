//! Ports: whether somebody else has ours, and whether this node's firewall lets them pass.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::finding::Finding;
use super::node::Node;
use super::sockets::Sockets;
use crate::advice::Advice;
use crate::kernel::live::probe::devices::Device;
use crate::kernel::live::probe::firewall::{Chain, Firewall};
use crate::kernel::{HOST_DEVICE, TUNNEL_DEVICE};

/// Where the kubelet listens.
const KUBELET: u16 = 10_250;
/// Where the API server listens, on nodes of the control plane.
const API_SERVER: u16 = 6_443;

/// A port that other nodes send to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    protocol: &'static str,
    number: u16,
    what: &'static str,
}

pub(super) fn examine(node: &Node) -> Vec<Finding> {
    let sockets = Sockets::look();
    let tunnel = node.has_tunnel().then_some(node.around.network.vxlan_port);
    let mut findings = Vec::new();
    if let Some(port) = tunnel {
        findings.push(vxlan(port, &node.devices, sockets.has_udp(port)));
    }
    if let Some(listen) = node.around.listen {
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        let in_the_way = sockets.in_the_way(listen);
        findings.push(metrics(listen, has_ipv6, in_the_way, node.status().is_some()));
    }
    let ports = expected(tunnel, node.around.listen, &sockets);
    match &node.firewall {
        Ok(firewall) => findings.extend(closed(firewall, &ports)),
        Err(why) => findings.push(Finding::unseen("firewall", why)),
    }
    findings.push(between(tunnel, node.around.listen));
    findings
}

/// The device of ours, another one, or a program: two cannot have the port.
fn vxlan(port: u16, devices: &BTreeMap<String, Device>, is_taken: bool) -> Finding {
    let check = "VXLAN port";
    let other_port = format!("or choose another port with --vxlan-port on all nodes ({port} now)");
    let at_port = |device: &&Device| device.vxlan_port == Some(port);
    let other = devices.values().filter(at_port).find(|device| device.link.name != TUNNEL_DEVICE);
    if let Some(other) = other {
        let name = &other.link.name;
        return Finding::failure(
            check,
            Advice::new(
                format!("the VXLAN device {name} of somebody else has UDP port {port}"),
                format!("end who made it, then `ip link delete {name}`, {other_port}"),
            ),
        );
    }
    let own = devices.get(TUNNEL_DEVICE).filter(at_port);
    if is_taken && !own.is_some_and(|own| own.link.up) {
        return Finding::failure(
            check,
            Advice::new(
                format!("another program has UDP port {port}"),
                format!("`ss -ulnp sport = :{port}` shows which; end it, {other_port}"),
            ),
        );
    }
    let whose = if own.is_some() { format!("{TUNNEL_DEVICE} has it") } else { "free".to_owned() };
    Finding::ok(check, format!("UDP {port}: {whose}"))
}

fn metrics(
    listen: SocketAddr,
    has_ipv6: bool,
    in_the_way: Option<SocketAddr>,
    agent_runs: bool,
) -> Finding {
    let check = "metrics port";
    if listen.is_ipv6() && !has_ipv6 {
        let found = format!("--listen {listen} wants IPv6, which this kernel runs without");
        let remedy = format!("--listen 0.0.0.0:{}, for the agent and here", listen.port());
        return Finding::failure(check, Advice::new(found, remedy));
    }
    match in_the_way {
        None => Finding::ok(check, format!("TCP {listen}: free")),
        Some(_) if agent_runs => Finding::ok(check, format!("TCP {listen}: the agent runs")),
        Some(other) => Finding::failure(
            check,
            Advice::new(
                format!("another program listens at {other}, where --listen {listen} shall be"),
                format!(
                    "`ss -tlnp sport = :{}` shows which; end it, or choose another port with --listen",
                    listen.port()
                ),
            ),
        ),
    }
}

/// What other nodes send to on this one.
fn expected(tunnel: Option<u16>, listen: Option<SocketAddr>, sockets: &Sockets) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut add = |protocol, number, what| ports.push(Port { protocol, number, what });
    if let Some(port) = tunnel {
        add("udp", port, "packets of pods");
    }
    if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) {
        add("tcp", listen.port(), "metrics");
    }
    if sockets.listens(KUBELET) {
        add("tcp", KUBELET, "the kubelet: logs, exec, probes");
    }
    if sockets.listens(API_SERVER) {
        add("tcp", API_SERVER, "the API server");
    }
    ports
}

/// A chain that drops what no rule accepts, and whose table does not name the port.
fn closed(firewall: &Firewall, ports: &[Port]) -> Vec<Finding> {
    let check = "firewall";
    let mut findings = Vec::new();
    for chain in firewall.chains.iter().filter(|chain| chain.is_closed_input()) {
        let key = (chain.family.clone(), chain.table.clone());
        let text = firewall.closed.get(&key).map(String::as_str).unwrap_or_default();
        let missing: Vec<&Port> = ports.iter().filter(|port| !names(text, port.number)).collect();
        if !missing.is_empty() && is_foreign(text) {
            findings.push(Finding::note(check, unread(chain, &missing)));
            continue;
        }
        findings.extend(missing.iter().map(|port| Finding::warning(check, cut_off(chain, port))));
    }
    if firewall.tables.iter().any(|(_, name)| name == "firewalld") {
        findings.push(firewalld(ports));
    }
    if findings.is_empty() {
        let found =
            "no nftables chain drops the ports of this node by its policy, unless a rule does";
        findings.push(Finding::ok(check, found));
    }
    if !firewall.legacy.is_empty() {
        findings.push(Finding::note(
            check,
            "there are tables of iptables-legacy, which nft does not show: `iptables-legacy -S` does",
        ));
    }
    findings
}

/// Rules of `iptables-nft` that this `nft` has no translation for (`xt match "udp"`, in older ones `# xt_udp`).
fn is_foreign(rules: &str) -> bool {
    rules.contains("xt match") || rules.contains("# xt_")
}

fn unread(chain: &Chain, ports: &[&Port]) -> String {
    let Chain { family, table, name, .. } = chain;
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!("{} {} ({})", port.protocol, port.number, port.what))
        .collect();
    let tool = if family == "ip6" { "ip6tables" } else { "iptables" };
    format!(
        "nftables chain {family} {table} {name} drops what no rule of it accepts, and has rules of iptables that cannot \
         be read here: see that `{tool} -S {name}` accepts {}",
        ports.join(", ")
    )
}

/// It accepts by its policy, and rejects by its last rule.
fn firewalld(ports: &[Port]) -> Finding {
    let mut commands: Vec<String> = ports
        .iter()
        .map(|port| {
            format!("`firewall-cmd --permanent --add-port={}/{}`", port.number, port.protocol)
        })
        .collect();
    commands
        .push(format!("`firewall-cmd --permanent --zone=trusted --add-interface={HOST_DEVICE}`"));
    commands.push("`firewall-cmd --reload`".to_owned());
    Finding::new(
        "firewall",
        super::Severity::Note,
        "firewalld runs, and rejects what its zones do not accept",
        Some(format!("unless it does already: {}", commands.join(", "))),
    )
}

fn cut_off(chain: &Chain, port: &Port) -> Advice {
    let Chain { family, table, name, .. } = chain;
    let Port { protocol, number, what } = port;
    let found = format!(
        "nftables chain {family} {table} {name} drops what no rule of it accepts, and none names {protocol} port \
         {number} ({what})"
    );
    let remedy = match (family.as_str(), table.as_str()) {
        ("ip" | "ip6", "filter") => {
            let tool = if family == "ip" { "iptables" } else { "ip6tables" };
            format!("`{tool} -I {name} -p {protocol} --dport {number} -j ACCEPT`")
        }
        _ => format!("`nft insert rule {family} {table} {name} {protocol} dport {number} accept`"),
    };
    Advice::new(
        found,
        format!(
            "{remedy}, without a connection state; make it permanent where the rules come from"
        ),
    )
}

/// Whether a rule has the number, alone or within a range.
fn names(rules: &str, port: u16) -> bool {
    let is_word = |c: char| !(c.is_ascii_digit() || c == '-');
    rules.split(is_word).any(|word| match word.split_once('-') {
        Some((first, last)) => match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        },
        None => word.parse() == Ok(port),
    })
}

/// What firewalls between the nodes have to let pass: one node does not see whether they do.
fn between(tunnel: Option<u16>, listen: Option<SocketAddr>) -> Finding {
    let pods = match tunnel {
        Some(port) => format!(
            "UDP {port} (pods inside VXLAN), and with direct packets the pod networks themselves"
        ),
        None => "the pod networks themselves (packets go as they are)".to_owned(),
    };
    let metrics = match listen.filter(|listen| !listen.ip().is_loopback()) {
        Some(listen) => format!("; TCP {} (metrics, from Prometheus)", listen.port()),
        None => String::new(),
    };
    Finding::note(
        "ports between nodes",
        format!(
            "must be open, which cannot be seen from one node: {pods}{metrics}; for Kubernetes TCP {KUBELET} (kubelet), \
             TCP {API_SERVER} and 2379-2380 on the control plane (API server, etcd), TCP and UDP 30000-32767 (NodePorts, \
             from clients)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::fake;
    use crate::kernel::Link;

    fn device(name: &str, vxlan_port: u16, up: bool) -> (String, Device) {
        let link = Link { up, ..fake::link(name, 3, 1500, &[]) };
        (name.to_owned(), Device { link, vxlan_port: Some(vxlan_port), xdp: None })
    }

    #[test]
    fn the_vxlan_port_is_ours_or_free_or_who_has_it_is_named() {
        let judge = |devices: Vec<_>, taken| vxlan(8472, &devices.into_iter().collect(), taken);
        assert_eq!(judge(vec![], false).state, Severity::Ok);
        assert_eq!(judge(vec![device("podwire-vxlan", 8472, true)], true).state, Severity::Ok);
        assert_eq!(judge(vec![device("flannel.1", 4789, true)], false).state, Severity::Ok);
        let finding = judge(vec![device("flannel.1", 8472, true)], true);
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.remedy.unwrap().contains("`ip link delete flannel.1`"));
        for devices in [vec![], vec![device("podwire-vxlan", 8472, false)]] {
            let finding = judge(devices, true);
            assert_eq!(finding.state, Severity::Failure);
            assert!(finding.remedy.unwrap().contains("ss -ulnp sport = :8472"));
        }
    }

    #[test]
    fn who_listens_where_metrics_shall_be_is_named() {
        let listen = "[::]:9869".parse().unwrap();
        let other = Some("0.0.0.0:9869".parse().unwrap());
        assert_eq!(metrics(listen, true, None, false).state, Severity::Ok);
        assert_eq!(metrics(listen, true, other, true).state, Severity::Ok);
        assert_eq!(metrics(listen, false, None, true).state, Severity::Failure);
        let finding = metrics(listen, true, other, false);
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.found.contains("0.0.0.0:9869"), "{}", finding.found);
    }

    #[test]
    fn a_closed_chain_that_does_not_name_a_port_is_named() {
        let chain = Chain {
            family: "inet".into(),
            table: "filter".into(),
            name: "input".into(),
            hook: "input".into(),
            policy: "drop".into(),
        };
        let text = "tcp dport { 22, 10250 } accept\n udp dport 8000-9000 accept\n";
        let closed_tables = [(("inet".into(), "filter".into()), text.into())].into();
        let mut firewall =
            Firewall { chains: vec![chain], closed: closed_tables, ..Firewall::default() };
        let port = |protocol, number| Port { protocol, number, what: "x" };
        let ports = [port("udp", 8472), port("tcp", 10_250), port("tcp", 9869)];
        let findings = closed(&firewall, &ports);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].found.contains("inet filter input") && findings[0].found.contains("9869")
        );
        let remedy = findings[0].remedy.as_ref().unwrap();
        assert!(
            remedy.contains("`nft insert rule inet filter input tcp dport 9869 accept`"),
            "{remedy}"
        );
        let text = "xt match \"udp\" accept\n tcp dport { 10250, 9869 } accept";
        firewall.closed.insert(("inet".into(), "filter".into()), text.into());
        let findings = closed(&firewall, &ports);
        assert_eq!(findings[0].state, Severity::Note, "{findings:?}");
        assert!(findings[0].found.contains("`iptables -S input` accepts udp 8472"), "{findings:?}");
        firewall.chains[0].policy = "accept".into();
        firewall.legacy = vec!["filter".into()];
        let states: Vec<_> =
            closed(&firewall, &ports).iter().map(|finding| finding.state).collect();
        assert_eq!(states, [Severity::Ok, Severity::Note]);
        firewall.tables.push(("inet".into(), "firewalld".into()));
        let remedy = closed(&firewall, &ports)[0].remedy.clone().unwrap();
        assert!(remedy.contains("--add-port=8472/udp") && remedy.contains("podwire0"), "{remedy}");
    }
}
