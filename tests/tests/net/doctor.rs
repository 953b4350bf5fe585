//! What `podwire-agent doctor` finds, and that its remedies are remedies.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::Node;

/// What is the machine's and not the test's.
const OF_THE_MACHINE: [&str; 5] =
    ["clock", "network configurations", "state directory", "type information", "BPF compiler"];

/// A check-up.
struct Report {
    findings: Vec<Value>,
    status: i32,
}

impl Report {
    fn of(node: &Node, arguments: &[&str]) -> Result<Self> {
        Self::read(&mut doctor(node, &[], &[&["--output", "json"], arguments].concat())?)
    }

    fn read(command: &mut Command) -> Result<Self> {
        let output = command::output(command)?;
        let status = status(&output)?;
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        for finding in &findings {
            let names: Vec<&String> = finding.as_object().context("object")?.keys().collect();
            ensure!(names == ["check", "found", "remedy", "state"], "{finding}");
        }
        Ok(Self { findings, status })
    }

    fn all(&self, check: &str) -> impl Iterator<Item = &Value> {
        self.findings.iter().filter(move |finding| finding["check"] == check)
    }

    /// The worst of a check.
    fn worst(&self, check: &str) -> Result<&Value> {
        let states = ["ok", "note", "warning", "failure"];
        let rank = |finding: &&Value| states.iter().position(|state| finding["state"] == *state);
        self.all(check).max_by_key(rank).with_context(|| format!("no {check}: {:?}", self.findings))
    }

    fn expect(&self, check: &str, state: &str, found: &[&str]) -> Result<&Value> {
        let worst = self.worst(check)?;
        ensure!(worst["state"] == state, "{check} is not {state}: {worst}");
        for text in found {
            ensure!(worst.to_string().contains(text), "{text} is not in {worst}");
        }
        Ok(worst)
    }

    /// Nothing but these, and what is the machine's, is worse than a note.
    fn only(&self, checks: &[&str]) -> Result<()> {
        let is_known = |finding: &&Value| {
            let is_fine = finding["state"] == "ok" || finding["state"] == "note";
            is_fine || checks.iter().chain(&OF_THE_MACHINE).any(|check| finding["check"] == *check)
        };
        let unknown: Vec<&Value> = self.findings.iter().filter(|one| !is_known(one)).collect();
        ensure!(unknown.is_empty(), "{unknown:?}");
        Ok(())
    }
}

/// The command, which a program runs that changes what it finds.
fn doctor(node: &Node, wrapper: &[&str], arguments: &[&str]) -> Result<Command> {
    let agent = binaries::agent()?.display().to_string();
    let words = [wrapper, &[agent.as_str(), "doctor"]].concat();
    let mut command = node.namespace.command(words[0]);
    command.args(&words[1..]);
    if !arguments.contains(&"--bpffs") {
        command.arg("--bpffs").arg(&node.bpffs);
    }
    command.arg("--socket").arg(node.socket()).arg("--state-dir").arg(&node.directory);
    command.args(arguments);
    Ok(command)
}

/// It ends by itself, and not by a panic (101) or because its time was over (124).
fn status(output: &Output) -> Result<i32> {
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code().context("a signal")?;
    ensure!([0, 1, 2].contains(&status) && said.is_empty(), "{}: {said}", output.status);
    Ok(status)
}

/// Runs what the remedy has between backquotes, on the node.
fn follow(node: &Node, finding: &Value) -> Result<()> {
    let remedy = finding["remedy"].as_str().context("no remedy")?;
    let commands: Vec<&str> = remedy.split('`').skip(1).step_by(2).collect();
    ensure!(!commands.is_empty(), "no command in {remedy}");
    for line in commands {
        let mut shell = node.namespace.command("sh");
        shell.args(["-c", line]);
        command::run(&mut shell).with_context(|| remedy.to_owned())?;
    }
    Ok(())
}

fn nft(node: &Node, text: &str) -> Result<()> {
    let mut nft = node.namespace.command("nft");
    let output = command::feed(nft.args(["-f", "-"]), text)?;
    command::checked(&nft, &output).map(drop)
}

/// What a check-up must not change.
fn traces(node: &Node) -> Result<[String; 4]> {
    Ok([
        node.namespace.run("nft --stateless list ruleset")?,
        node.namespace.run("ip -brief address")?,
        node.namespace.run("ip route show table all")?,
        node.namespace.run(&format!(
            "find {} {}",
            node.bpffs.display(),
            node.directory.display()
        ))?,
    ])
}

#[test]
fn a_healthy_node() {
    for mode in Mode::ALL {
        Cluster::builder(mode).listening().test(|cluster| {
            let node = cluster.node(1);
            let _pod = node.pod()?;
            let before = traces(node)?;
            let report = Report::of(node, &["--listen", "[::]:9869"])?;
            ensure!(traces(node)? == before, "it has changed something");
            ensure!(report.status == 0, "{:?}", report.findings);
            report.only(&[])?;
            for (check, found) in [
                ("kernel", "Linux"),
                ("BPF program type", "sched_cls"),
                ("BPF map types", "lpm_trie"),
                ("BPF helpers", "bpf_redirect_peer"),
                ("BPF programs", "takes all"),
                ("TCX", "links"),
                ("device kinds", "veth"),
                ("nftables", "take the table"),
                ("BPF filesystem", "is on one"),
                ("/proc/sys", "ip_forward"),
                ("uplinks", "eth0"),
                ("IPv4 forwarding", "net.ipv4.ip_forward is 1"),
                ("IPv6 forwarding", "forwarding is 1"),
                ("rp_filter of eth0", "0"),
                ("routes to pods", "podwire0"),
                ("MTU of pods", "eth0 has 1500"),
                ("ways to nodes", "ping -M do"),
                ("metrics port", "9869"),
                ("other networks", "nothing"),
                ("agent", "as it should be"),
                ("nodes", "2 from the node file"),
                ("pinned programs", "5 below"),
                ("attached programs", "hooks have theirs"),
            ] {
                report.expect(check, "ok", &[found])?;
            }
            let port = report.all("VXLAN port").next();
            ensure!(port.is_some() == (mode == Mode::Vxlan), "{port:?}");
            let open = if mode == Mode::Vxlan { "UDP 8472" } else { "pod networks themselves" };
            report.expect("ports between nodes", "note", &[open, "10250", "2379-2380"])?;
            for (arguments, wanted) in [(&[][..], "0 failed"), (&["--strict"], "0 failed")] {
                let output = command::output(&mut doctor(node, &[], arguments)?)?;
                let table = String::from_utf8_lossy(&output.stdout);
                let has_warnings = !table.ends_with("0 warnings\n");
                let strict = !arguments.is_empty() && has_warnings;
                ensure!(status(&output)? == if strict { 2 } else { 0 }, "{table}");
                ensure!(table.contains("BPF helpers") && table.contains(wanted), "{table}");
            }
            Ok(())
        });
    }
}

#[test]
fn before_the_agent_and_after_it() {
    Cluster::builder(Mode::Vxlan).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let report = Report::of(node, &["--listen", "[::]:9869"])?;
        ensure!(report.status == 0, "{:?}", report.findings);
        report.only(&[])?;
        report.expect("agent", "note", &["has not run here yet"])?;
        report.expect("IPv4 forwarding", "note", &["the agent sets it"])?;
        report.expect("MTU of pods", "ok", &["1450 inside VXLAN"])?;
        report.expect("pinned programs", "ok", &["none below"])?;
        ensure!(!node.bpffs.exists(), "something was made");
        node.spawn_agent()?;
        node.wait_for_agent()?;
        let _pod = node.pod()?;
        node.kill_agent();
        let report = Report::of(node, &[])?;
        ensure!(report.status == 0, "{:?}", report.findings);
        report.only(&["agent"])?;
        report.expect("agent", "warning", &["last alive", "podwire-agent run"])?;
        report.expect("attached programs", "ok", &["hooks have theirs"])?;
        ensure!(Report::of(node, &["--strict"])?.status == 2, "warnings do not count");
        Ok(())
    });
}

#[test]
fn a_strict_rp_filter() {
    Cluster::builder(Mode::Direct).nodes(1).strict_rp_filter().test(|cluster| {
        let node = cluster.node(1);
        let report = Report::of(node, &[])?;
        report.only(&["rp_filter of eth0"])?;
        let finding = report.expect("rp_filter of eth0", "warning", &["strict"])?;
        follow(node, finding)?;
        Report::of(node, &[])?.expect("rp_filter of eth0", "ok", &["2"]).map(drop)
    });
}

#[test]
fn what_other_networks_left() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        node.namespace.ip("link add cni0 type bridge\nlink add flannel.1 type bridge")?;
        nft(node, "table ip flannel-ipv4 { chain postrtg { }; }")?;
        nft(node, "table ip nat { chain CILIUM_POST_nat { }; }")?;
        node.namespace.ip("route add blackhole 10.244.7.0/26 proto bird")?;
        let report = Report::of(node, &[])?;
        ensure!(report.status == 0, "{:?}", report.findings);
        let checks = [
            "leftovers of a bridge",
            "leftovers of Flannel",
            "leftovers of Cilium",
            "routes to pods",
        ];
        report.only(&checks)?;
        report.expect(checks[0], "warning", &["cni0"])?;
        let of_flannel: Vec<_> = report.all(checks[1]).map(ToString::to_string).collect();
        ensure!(of_flannel.len() == 2, "{of_flannel:?}");
        report.expect(checks[2], "warning", &["CILIUM_POST_nat", "iptables-save"])?;
        report.expect(checks[3], "warning", &["10.244.7.0/26", "proto bird"])?;
        for check in [checks[0], checks[1], checks[3]] {
            for finding in report.all(check) {
                follow(node, finding)?;
            }
        }
        nft(node, "delete table ip nat")?;
        let report = Report::of(node, &[])?;
        report.only(&[])?;
        report.expect("other networks", "ok", &["nothing"]).map(drop)
    });
}

#[test]
fn programs_of_others_at_an_uplink() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let program = node.bpffs.join("programs/pw_to_pod");
        node.namespace.run("tc qdisc add dev eth0 clsact")?;
        node.namespace.run(&format!(
            "tc filter add dev eth0 ingress bpf direct-action object-pinned {}",
            program.display()
        ))?;
        let report = Report::of(node, &[])?;
        let finding =
            report.expect("programs of eth0", "note", &["clsact of eth0", "pw_to_pod"])?;
        follow(node, finding)?;
        let report = Report::of(node, &[])?;
        ensure!(report.all("programs of eth0").next().is_none(), "{:?}", report.findings);
        Ok(())
    });
}

#[test]
fn a_network_configuration_before_ours() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let [plugins, configurations] = ["bin", "net.d"].map(|name| node.directory.join(name));
        let [bin, net] = [&plugins, &configurations].map(|path| path.to_string_lossy());
        let arguments = ["--cni-bin-dir", &bin, "--cni-conf-dir", &net];
        let report = Report::of(node, &arguments)?;
        ensure!(report.status == 1, "{:?}", report.findings);
        for check in ["CNI plugins", "CNI configurations"] {
            report.expect(check, "failure", &["cannot be written", "mkdir -p"])?;
        }
        fs::create_dir_all(&plugins)?;
        fs::create_dir_all(&configurations)?;
        fs::write(configurations.join("10-flannel.conflist"), "{}")?;
        let check = "network configurations";
        Report::of(node, &arguments)?.expect(check, "note", &["10-flannel.conflist", "rm "])?;
        fs::write(configurations.join("00-calico.conflist"), "{}")?;
        let report = Report::of(node, &arguments)?;
        ensure!(report.status == 0, "{:?}", report.findings);
        report.expect(
            check,
            "warning",
            &["00-calico.conflist and not 05-podwire", "move it away"],
        )?;
        Ok(())
    });
}

#[test]
fn ports_that_somebody_else_has() {
    Cluster::builder(Mode::Vxlan).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let check = "VXLAN port";
        let socket = node.namespace.enter(|| UdpSocket::bind("192.168.1.11:8472"))?;
        let report = Report::of(node, &[])?;
        ensure!(report.status == 1, "{:?}", report.findings);
        report.only(&[check])?;
        report.expect(
            check,
            "failure",
            &["another program", "8472", "ss -ulnp", "--vxlan-port"],
        )?;
        for arguments in [["--vxlan-port", "4789"], ["--encapsulation", "direct"]] {
            Report::of(node, &arguments)?.only(&[])?;
        }
        drop(socket);
        Report::of(node, &[])?.expect(check, "ok", &["free"])?;
        node.namespace
            .ip("link add other type vxlan id 1 dstport 8472 dev eth0\nlink set other up")?;
        let report = Report::of(node, &[])?;
        report.expect(check, "failure", &["VXLAN device other", "`ip link delete other`"])?;
        follow(node, report.worst(check)?)?;
        let _listener = node.namespace.enter(|| TcpListener::bind("0.0.0.0:9869"))?;
        let report = Report::of(node, &["--listen", "[::]:9869"])?;
        ensure!(report.status == 1, "{:?}", report.findings);
        report.only(&["metrics port"])?;
        report.expect("metrics port", "failure", &["0.0.0.0:9869", "--listen"]).map(drop)
    });
}

#[test]
fn firewalls_that_drop() {
    Cluster::builder(Mode::Vxlan).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let chain = |name: &str| {
            let hook = name.to_lowercase();
            format!("chain {name} {{ type filter hook {hook} priority 0; policy drop; }};")
        };
        nft(node, &format!("table inet own {{ {} {} }}", chain("FORWARD"), chain("INPUT")))?;
        let report = Report::of(node, &[])?;
        ensure!(report.status == 0, "{:?}", report.findings);
        report.only(&["forward policy", "firewall"])?;
        report.expect("forward policy", "warning", &["inet own FORWARD", "podwire0 accept"])?;
        let finding = report.expect("firewall", "warning", &["inet own INPUT", "udp port 8472"])?;
        follow(node, finding)?;
        let accept = "iifname podwire0 accept; add rule inet own FORWARD oifname podwire0 accept";
        nft(node, &format!("add rule inet own FORWARD {accept}"))?;
        let report = Report::of(node, &[])?;
        report.only(&[])?;
        report.expect("firewall", "ok", &[]).map(drop)
    });
}

#[test]
fn no_bpf_filesystem() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let plain: PathBuf = node.directory.join("pins");
        let report = Report::of(node, &["--bpffs", &plain.to_string_lossy()])?;
        ensure!(report.status == 1, "{:?}", report.findings);
        report.only(&["BPF filesystem"])?;
        report.expect("BPF filesystem", "failure", &["no BPF filesystem", "mount -t bpf"]).map(drop)
    });
}

#[test]
fn pins_of_somebody_else() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        node.stop_agent()?;
        let pin = node.bpffs.join("maps/stranger");
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["map", "create"]).arg(&pin);
        bpftool.args("type hash key 4 value 4 entries 8 name foreign".split(' '));
        command::run(&mut bpftool)?;
        let report = Report::of(node, &[])?;
        ensure!(report.status == 1, "{:?}", report.findings);
        report.expect("pins", "failure", &["maps/stranger", "remove it"]).map(drop)
    });
}

#[test]
fn who_makes_services_work() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        Report::of(node, &[])?.expect("services", "note", &["nothing of kube-proxy"])?;
        nft(node, "table ip nat { chain KUBE-SERVICES { }; }")?;
        Report::of(node, &[])?.expect("services", "note", &["iptables mode"])?;
        nft(node, "table ip kube-proxy { chain services { }; }")?;
        let report = Report::of(node, &[])?;
        report.expect("services", "note", &["nftables mode", "address of their node"]).map(drop)
    });
}

#[test]
fn a_firewall_of_iptables() {
    Cluster::builder(Mode::Vxlan).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        for tool in ["iptables-nft", "ip6tables-nft"] {
            node.namespace.run(&format!("{tool} -P INPUT DROP"))?;
        }
        let report = Report::of(node, &[])?;
        report.only(&["firewall"])?;
        let found: Vec<&Value> = report.all("firewall").collect();
        ensure!(found.len() == 2, "{found:?}");
        for finding in found {
            follow(node, finding)?;
        }
        let report = Report::of(node, &[])?;
        report.only(&[])?;
        report.expect("firewall", "ok", &[]).map(drop)
    });
}

/// As the manifest starts it: three capabilities, and what is not the agent's is read-only.
#[test]
fn in_a_container() {
    Cluster::builder(Mode::Vxlan).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let _pod = node.pod()?;
        let sysctls = node.directory.join("proc/sys/net");
        fs::create_dir_all(&sysctls)?;
        let furnish = "set -e
            mount --bind /proc/sys/net \"$1\"
            for directory in /proc/sys /sys; do
                mount --rbind $directory $directory; mount -o remount,bind,ro $directory
            done
            shift; exec \"$@\"";
        let wrapped = |set: &str, arguments: &[&str]| -> Result<Report> {
            let (sysctls, set) = (sysctls.to_string_lossy(), format!("--bounding-set={set}"));
            let wrapper = ["unshare", "--mount", "sh", "-c", furnish, "sh", &sysctls];
            let wrapper = [&wrapper[..], &["setpriv", "--inh-caps=-all", &set]].concat();
            let arguments = [&["--output", "json"], arguments].concat();
            Report::read(&mut doctor(node, &wrapper, &arguments)?)
        };
        let directory = node.directory.join("proc/sys");
        let place = ["--sysctl-dir", &directory.to_string_lossy()];
        let report = wrapped("-all,+bpf,+perfmon,+net_admin", &place)?;
        ensure!(report.status == 0, "{:?}", report.findings);
        report.only(&[])?;
        for check in
            ["BPF helpers", "BPF programs", "TCX", "nftables", "agent", "attached programs"]
        {
            report.expect(check, "ok", &[])?;
        }
        report.expect("grace periods", "note", &["read-only"])?;
        // What the agent has, this one has not.
        report.expect("/proc/sys", "ok", &[])?;
        let report = wrapped("-all,+bpf,+perfmon,+net_admin", &[])?;
        report.expect("/proc/sys", "note", &["the agent that runs can"])?;
        node.stop_agent()?;
        let report = wrapped("-all,+bpf,+perfmon,+net_admin", &[])?;
        ensure!(report.status == 1, "{:?}", report.findings);
        report.expect("/proc/sys", "failure", &["Read-only", "--sysctl-dir"])?;
        let report = wrapped("-all", &place)?;
        ensure!(report.status == 1, "{:?}", report.findings);
        report.only(&["agent", "privileges"])?;
        report.expect("privileges", "failure", &["CAP_BPF missing"])?;
        report.expect("pinned programs", "note", &["cannot be seen"])?;
        report.expect("BPF programs", "note", &["cannot be seen"]).map(drop)
    });
}
