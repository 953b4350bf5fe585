//! What people get wrong, and what they read then: what, where, and what to do.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::binaries;
use tests::cluster::{CLUSTER_CIDRS, Cluster, Mode};
use tests::command;
use tests::node::Node;
use tests::probe;
use tests::wait::wait_until;

const SEEN_TIME_MAX: Duration = Duration::from_secs(15);

/// Where an agent that shall be refused keeps what is its own.
struct Agent {
    socket: PathBuf,
    bpffs: PathBuf,
    state: PathBuf,
}

impl Agent {
    /// With everything where the node's own agent has it.
    fn of(node: &Node) -> Self {
        let (socket, state) = (node.socket(), node.directory.clone());
        Self { socket, bpffs: node.bpffs.clone(), state }
    }

    /// Its command, which a program runs that changes what it finds.
    fn command(&self, node: &Node, wrapper: &[&str]) -> Result<Command> {
        let mut words = wrapper.iter().map(ToString::to_string);
        let agent = binaries::agent()?.display().to_string();
        let mut command = node.namespace.command(&words.next().unwrap_or_else(|| agent.clone()));
        command.args(words);
        if !wrapper.is_empty() {
            command.arg(agent);
        }
        command.args(["run", "--node-name", &node.name, "--encapsulation", "direct"]);
        let nodes_file = node.directory.parent().context("the run's directory")?;
        command.arg("--nodes-file").arg(nodes_file.join("nodes.toml"));
        command.arg("--socket").arg(&self.socket).arg("--bpffs").arg(&self.bpffs);
        command.arg("--state-dir").arg(&self.state);
        command.args(CLUSTER_CIDRS.iter().flat_map(|cidr| ["--cluster-cidr", cidr]));
        Ok(command)
    }

    /// It must end by itself, with an error that has all of these in it.
    fn refused(&self, node: &Node, wanted: &[&str]) -> Result<()> {
        refused(&mut self.command(node, &[])?, wanted)
    }
}

fn refused(command: &mut Command, wanted: &[&str]) -> Result<()> {
    let output = command::output(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    // 124 is a program that ran until its time was over.
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    for text in wanted {
        ensure!(said.contains(text), "{text} is not in: {said}");
    }
    ensure!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    Ok(())
}

#[test]
fn a_second_agent() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.pod()?;
        let pid = format!("(process {})", node.agent_pid()?);
        let other = node.directory.join("other");
        let first = Agent::of(node);
        let state = first.state.display().to_string();
        first.refused(node, &["another agent", &pid, &state, "--state-dir"])?;
        let socket = first.socket.display().to_string();
        let same_socket = Agent { state: other.clone(), bpffs: other_bpffs(node), ..first };
        same_socket.refused(node, &["another agent", &socket, "--socket"])?;
        let same_pins =
            Agent { socket: other.join("sock"), bpffs: node.bpffs.clone(), state: other };
        let pins = node.bpffs.display().to_string();
        same_pins.refused(node, &["another agent", &pins, "--bpffs"])?;
        // The first one has lost nothing, neither its socket nor its pins.
        ensure!(node.status()?["settled"] == true, "{}", node.status()?["problems"]);
        probe::ping(&node.namespace, pod.addresses[0])?;
        node.pod().map(drop)
    });
}

fn other_bpffs(node: &Node) -> PathBuf {
    node.bpffs.with_file_name("other")
}

#[test]
fn foreign_pins() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let agent = Agent::of(node);
        let create = |pin: &Path| {
            let mut bpftool = Command::new("bpftool");
            bpftool.args(["map", "create"]).arg(pin);
            bpftool.args("type hash key 4 value 4 entries 8 name foreign".split(' '));
            command::run(&mut bpftool)
        };
        for name in ["programs", "maps", "links"] {
            fs::create_dir_all(node.bpffs.join(name))?;
        }
        let cases = [
            ("stranger", "nothing of ours has this name"),
            ("programs/stranger", "nothing of ours has this name"),
            ("programs/pw_from_pod", "nothing of ours has this name and kind"),
            ("maps/stranger", "nothing of ours has this name"),
            ("maps/pw_pods", "it was pinned with key size 4"),
            ("links/stranger", "not the pin of a TCX link"),
            ("links/eth0-ingress", "not the pin of a TCX link"),
        ];
        for (pin, what) in cases {
            let pin = node.bpffs.join(pin);
            create(&pin)?;
            agent.refused(node, &[&pin.display().to_string(), what, "remove"])?;
            ensure!(pin.exists(), "{} was removed", pin.display());
            fs::remove_file(&pin)?;
        }
        node.spawn_agent()?;
        node.wait_for_agent()
    });
}

#[test]
fn what_is_at_the_place_of_the_socket() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let agent = Agent::of(node);
        let socket = node.socket();
        let path = socket.display().to_string();
        fs::write(&socket, "precious")?;
        agent.refused(node, &[&path, "is not a socket", "--socket"])?;
        ensure!(fs::read_to_string(&socket)? == "precious");
        fs::remove_file(&socket)?;
        let listener = UnixListener::bind(&socket)?;
        agent.refused(node, &["another agent listens", &path, "--socket"])?;
        // Nobody listens any more, and the file is there: as after SIGKILL.
        drop(listener);
        ensure!(socket.exists());
        node.spawn_agent()?;
        node.wait_for_agent()
    });
}

/// Changes of a good node file, the line that is named, and what is said of it.
fn bad_node_files(good: &str) -> Vec<(String, usize, Vec<&'static str>)> {
    let at = |needle: &str| {
        1 + good.lines().position(|line| line.contains(needle)).expect("in the node file")
    };
    let (second, pods2) = (at("192.168.1.12"), at("10.244.2.0/24"));
    let change = |from: &str, to: &str| {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from} is not in the node file");
        bad
    };
    vec![
        (change("[[node]]", "[[node"), 1, vec![]),
        (change("10.244.2.0/24", "10.244.1.0/25"), pods2, vec!["overlaps", "10.244.1.0/24"]),
        (change("192.168.1.12", "192.168.1.11"), second, vec!["192.168.1.11", "node1"]),
        (change("fd00:10:244:2::/64", "::ffff:10.9.0.0/112"), pods2, vec!["IPv4-mapped"]),
        (change(", \"fd00:10:244:2::/64\"", ""), second - 1, vec!["no IPv6 pod network"]),
        (change("192.168.1.12", "192.168.1.300"), second, vec!["192.168.1.300", "IP address"]),
        (
            change("192.168.1.12", "10.244.3.9"),
            second,
            vec!["10.244.3.9", "outside all pod networks"],
        ),
        (change("10.244.2.0/24", "10.244.2.7/24"), pods2, vec!["write 10.244.2.0/24"]),
        (change("10.244.2.0/24", "10.99.0.0/24"), pods2, vec!["outside the cluster's networks"]),
        (change("\"node2\"", "\"node1\""), second - 1, vec!["also the name"]),
        (change("addresses", "adresses"), 3, vec!["unknown field", "adresses"]),
        ("\u{0}\u{1}garbage".to_owned(), 1, vec![]),
    ]
}

#[test]
fn bad_node_files_at_start() {
    Cluster::builder(Mode::Direct).without_agents().test(|cluster| {
        let (node, file) = (cluster.node(1), cluster.run().directory().join("nodes.toml"));
        let agent = Agent::of(node);
        let good = fs::read_to_string(&file)?;
        for (bad, line, mut wanted) in bad_node_files(&good) {
            cluster.write_node_file(&bad)?;
            let place = format!("nodes.toml:{line}: ");
            wanted.push(&place);
            agent.refused(node, &wanted).with_context(|| bad.clone())?;
        }
        cluster.write_node_file(&good.replace("\"node1\"", "\"other\""))?;
        agent.refused(node, &["no node is called \"node1\"", "node2, other", "--node-name"])?;
        fs::remove_file(&file)?;
        agent.refused(node, &["nodes.toml", "cannot be read", "--nodes-file"])
    });
}

#[test]
fn bad_node_files_of_a_running_agent() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let node = cluster.node(1);
        let (pod, remote) = (node.pod()?, cluster.node(2).pod()?);
        let good = fs::read_to_string(cluster.run().directory().join("nodes.toml"))?;
        for (bad, line, mut wanted) in bad_node_files(&good) {
            cluster.write_node_file(&bad)?;
            let place = format!("nodes.toml:{line}: ");
            wanted.push(&place);
            problems(node, &wanted)?;
            ensure!(node.status()?["peers"][0]["name"] == "node2", "{bad}: the peer is lost");
            for address in &remote.addresses {
                probe::ping(&pod.namespace, *address)?;
            }
        }
        let joined = format!(
            "{good}[[node]]\nname = \"node9\"\naddresses = [\"192.168.1.19\"]\n\
             pod_cidrs = [\"10.244.9.0/24\", \"fd00:10:244:9::/64\"]\n"
        );
        for (text, names) in [(&joined, &["node2", "node9"][..]), (&good, &["node2"])] {
            cluster.write_node_file(text)?;
            wait_until("the peers", SEEN_TIME_MAX, || peers_are(node, names))?;
        }
        Ok(())
    });
}

/// All of them stand in one problem.
fn problems(node: &Node, wanted: &[&str]) -> Result<()> {
    wait_until("the problem", SEEN_TIME_MAX, || {
        let problems = node.status()?["problems"].clone();
        let texts = problems.as_array().context("problems")?.iter().filter_map(Value::as_str);
        let is_there = texts.into_iter().any(|text| wanted.iter().all(|want| text.contains(want)));
        ensure!(is_there, "{wanted:?} are not in {problems}");
        Ok(())
    })
}

fn peers_are(node: &Node, names: &[&str]) -> Result<()> {
    let status = node.status()?;
    let peers = status["peers"].as_array().context("peers")?;
    let found: Vec<_> = peers.iter().filter_map(|peer| peer["name"].as_str()).collect();
    ensure!(found == names && status["settled"] == true, "{found:?}");
    ensure!(status["problems"] == json!([]), "{}", status["problems"]);
    // What the maps say: the pod network of each peer.
    let is_peer =
        |entry: &&Value| matches!(entry["formatted"]["value"]["kind"].as_u64(), Some(1 | 2));
    let networks = node.map("pw_nodes")?.iter().filter(is_peer).count();
    ensure!(networks == 2 * names.len(), "{networks} networks");
    Ok(())
}

#[test]
fn missing_privileges() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let (node, agent) = (cluster.node(1), Agent::of(cluster.node(1)));
        let cases = [
            ("-net_admin", &["CAP_NET_ADMIN missing", "as root"][..]),
            ("-sys_admin,-bpf", &["CAP_BPF missing", "as root"]),
            ("-all", &["CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF missing", "as root"]),
        ];
        for (dropped, wanted) in cases {
            let set = format!("--bounding-set={dropped}");
            let mut command = agent.command(node, &["setpriv", "--inh-caps=-all", &set])?;
            refused(&mut command, wanted).context(dropped)?;
        }
        ensure!(!node.bpffs.exists(), "something was made");
        Ok(())
    });
}

#[test]
fn no_nft() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let (node, agent) = (cluster.node(1), Agent::of(cluster.node(1)));
        // In a mount namespace of its own, what `nft` names is no file any more.
        let hide = "mount --bind /dev/null \"$(readlink -f \"$(command -v nft)\")\" && exec \"$@\"";
        let mut command = agent.command(node, &["unshare", "--mount", "sh", "-c", hide, "sh"])?;
        refused(&mut command, &["find the program `nft`", "install nftables"])?;
        ensure!(!node.bpffs.exists(), "something was made");
        Ok(())
    });
}

#[test]
fn no_bpf_file_system() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let plain = Agent { bpffs: node.directory.join("pins"), ..Agent::of(node) };
        plain.refused(node, &["is no BPF filesystem", "mount -t bpf", "--bpffs"])?;
        let agent = Agent::of(node);
        let own = "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"";
        let mut command = agent.command(node, &["unshare", "--mount", "sh", "-c", own, "sh"])?;
        refused(&mut command, &["private mount namespace", "nsenter --net"])
    });
}
