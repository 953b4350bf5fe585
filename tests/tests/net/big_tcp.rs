//! Packets of more than 64 KiB: where they go, where they may not, and what becomes of the uplink.

mod stream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cluster::{Builder, Cluster, Mode};
use tests::command;
use tests::fabric::{Layout, WORLD};
use tests::namespace::Namespace;
use tests::node::Node;
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;
use tests::wait::wait_until;

use self::stream::{mean, set_sizes, sizes};

const PATIENCE: Duration = Duration::from_secs(30);
/// No packet is longer without BIG TCP.
const LEGACY: u64 = 65_536;
/// What a veth takes at most.
const MOST: u64 = 524_280;
/// What is between, for uplinks that somebody has set.
const SET: u32 = 200_000;
/// Packets are about as long as the MTU where the kernel has split them.
const SPLIT: u64 = 3_000;

const ON: &[&str] = &["--big-tcp", "on"];

fn started(builder: Builder, arguments: &[&str], test: impl FnOnce(&Cluster) -> Result<()>) {
    builder.without_agents().test(|cluster| {
        start(cluster, arguments)?;
        test(cluster)
    });
}

fn start(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    cluster.nodes().iter().try_for_each(|node| node.spawn_agent_with(arguments))?;
    cluster.nodes().iter().try_for_each(|node| node.wait_for_agent())
}

fn restart(node: &Node, arguments: &[&str]) -> Result<()> {
    node.kill_agent();
    node.spawn_agent_with(arguments)?;
    node.wait_for_agent()
}

fn world() -> Result<[IpAddr; 2]> {
    let [ipv4, ipv6] = WORLD;
    Ok([ipv4.parse()?, ipv6.parse()?])
}

/// How long packets of an uplink are in the mean while the pod sends to each of these addresses.
fn by_uplink(pod: &Pod, to: &Namespace, addresses: &[IpAddr]) -> Result<Vec<u64>> {
    let uplink = (&pod.node.namespace, "eth0");
    addresses.iter().map(|at| mean(&pod.namespace, (to, *at), uplink)).collect()
}

fn all_larger(means: &[u64]) -> Result<()> {
    ensure!(means.iter().all(|mean| *mean > LEGACY), "packets of {means:?} bytes");
    Ok(())
}

fn why(node: &Node) -> Result<String> {
    let status = node.status()?;
    let why = status["node"]["bigTcp"]["why"].as_str().context("no reason")?;
    Ok(why.to_owned())
}

#[test]
fn on_packets_are_larger_everywhere() {
    started(Cluster::builder(Mode::Direct), ON, |cluster| {
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (pod, near, far) = (one.pod()?, one.pod()?, two.pod()?);
        let host_ifname = pod.host_ifname()?;
        for (namespace, device) in [(&pod.namespace, "eth0"), (&one.namespace, &*host_ifname)] {
            ensure!(sizes(namespace, device)? == [MOST, MOST], "{device}");
        }
        let on_node: Result<Vec<u64>> = near
            .addresses
            .iter()
            .map(|at| mean(&pod.namespace, (&near.namespace, *at), (&pod.namespace, "eth0")))
            .collect();
        all_larger(&on_node?).context("on a node")?;
        all_larger(&by_uplink(&pod, &far.namespace, &far.addresses)?).context("to a pod")?;
        all_larger(&by_uplink(&pod, &two.namespace, &two.addresses)?).context("to a node")?;
        let outside = &cluster.fabric.world;
        all_larger(&by_uplink(&pod, outside, &world()?)?).context("to the world")?;
        let _servers = [
            Server::start(&near.namespace, &near.addresses)?,
            Server::start(&far.namespace, &far.addresses)?,
            Server::start(outside, &world()?)?,
        ];
        for address in near.addresses.iter().chain(&far.addresses).copied().chain(world()?) {
            probe::all_after_discovery(&pod.namespace, address)?;
            probe::tcp(&pod.namespace, address, probe::BULK_BYTES)?;
        }
        for address in world()? {
            let seen = probe::seen_tcp(&pod.namespace, address)?;
            ensure!(one.addresses.contains(&seen), "the world sees {seen}");
        }
        Ok(())
    });
}

/// The kernel forwards no larger packets of IPv6 whose segments fill the way exactly.
#[test]
fn a_narrow_way_on_the_route_is_found_by_large_packets() {
    let layout = Layout::Routed { middle_mtu: 1400 };
    started(Cluster::builder(Mode::Direct).layout(layout), ON, |cluster| {
        let (pod, far) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
        all_larger(&by_uplink(&pod, &far.namespace, &far.addresses)?)?;
        let _server = Server::start(&far.namespace, &far.addresses)?;
        for address in &far.addresses {
            probe::all_after_discovery(&pod.namespace, *address)?;
        }
        Ok(())
    });
}

#[test]
fn to_a_device_that_takes_less_they_are_split_and_arrive() {
    started(Cluster::builder(Mode::Direct), ON, |cluster| {
        let (one, outside) = (cluster.node(1), &cluster.fabric.world);
        one.namespace.ip(&format!(
            "link add wan type veth peer name wan netns {}\nlink set wan up\n\
             address add 198.51.100.1/24 dev wan\naddress add 2001:db8:9::1/64 dev wan",
            outside.name()
        ))?;
        outside.ip("link set wan up\n\
             address add 198.51.100.2/24 dev wan\naddress add 2001:db8:9::2/64 dev wan")?;
        let pod = one.pod()?;
        for address in ["198.51.100.2", "2001:db8:9::2"] {
            let to = (outside, address.parse()?);
            let mean = mean(&pod.namespace, to, (&one.namespace, "wan"))?;
            ensure!(mean < SPLIT, "{address}: packets of {mean} bytes");
        }
        Ok(())
    });
}

#[test]
fn a_narrow_device_keeps_ipv6_as_it_is() {
    started(Cluster::builder(Mode::Direct), ON, |cluster| {
        let one = cluster.node(1);
        one.namespace.ip("link add wan mtu 1420 type veth peer name wanp\nlink set wanp up\n\
             link set wan up\naddress add 2001:db8:9::1/64 dev wan")?;
        wait_until("the choice", PATIENCE, || {
            let why = why(one)?;
            ensure!(why.contains("IPv6 is left out: wan has an MTU of 1420"), "{why}");
            Ok(())
        })?;
        let (pod, outside) = (one.pod()?, &cluster.fabric.world);
        ensure!(sizes(&pod.namespace, "eth0")? == [LEGACY, LEGACY], "IPv6 is larger");
        let [ipv4, ipv6] = by_uplink(&pod, outside, &world()?)?[..] else { unreachable!() };
        ensure!(ipv4 > LEGACY && ipv6 <= LEGACY && ipv6 > SPLIT, "{ipv4} and {ipv6}");
        Ok(())
    });
}

/// As it is installed: nothing is changed, and nothing is sent that was not sent before.
#[test]
fn devices_as_they_are_or_a_tunnel_leave_pods_as_the_kernel_makes_them() {
    let cases: [(Mode, &[&str], &str); 4] = [
        (Mode::Direct, &[], "off: eth0 takes 65536 of IPv4, eth0 takes 65536 of IPv6"),
        (Mode::Direct, &["--big-tcp", "off"], "off: --big-tcp off"),
        (Mode::Vxlan, &[], "off: packets may go through VXLAN"),
        (Mode::Auto, &[], "off: packets may go through VXLAN"),
    ];
    for (mode, arguments, because) in cases {
        started(Cluster::builder(mode), arguments, |cluster| {
            let (one, two) = (cluster.node(1), cluster.node(2));
            ensure!(why(one)?.starts_with(because), "{}", why(one)?);
            let told = std::fs::read_to_string(one.directory.join("plugin.json"))?;
            ensure!(!told.contains("bigTcp"), "{told}");
            let (pod, far) = (one.pod()?, two.pod()?);
            ensure!(sizes(&pod.namespace, "eth0")? == [LEGACY, LEGACY], "another size");
            ensure!(sizes(&one.namespace, "eth0")? == [LEGACY, LEGACY], "another uplink");
            let means = by_uplink(&pod, &far.namespace, &far.addresses)?;
            ensure!(means.iter().all(|mean| (SPLIT..=LEGACY).contains(mean)), "{means:?}");
            Ok(())
        });
    }
}

#[test]
fn auto_follows_the_smallest_device_on_the_way() {
    Cluster::builder(Mode::Direct).without_agents().test(|cluster| {
        let (one, two) = (cluster.node(1), cluster.node(2));
        set_sizes(&one.namespace, "eth0", SET)?;
        start(cluster, &[])?;
        let (pod, far) = (one.pod()?, two.pod()?);
        ensure!(sizes(&pod.namespace, "eth0")? == [u64::from(SET); 2], "another size");
        ensure!(sizes(&far.namespace, "eth0")? == [LEGACY, LEGACY], "that of its own uplink");
        all_larger(&by_uplink(&pod, &far.namespace, &far.addresses)?)?;

        // As when only the pods were given larger packets.
        set_sizes(&one.namespace, "eth0", 65_536)?;
        wait_until("the problem", PATIENCE, || {
            let problems = one.status()?["problems"].to_string();
            ensure!(problems.contains("1 pods were made to send larger packets"), "{problems}");
            Ok(())
        })?;
        let means = by_uplink(&pod, &far.namespace, &far.addresses)?;
        ensure!(means.iter().all(|mean| *mean < SPLIT), "not split: {means:?}");
        let newer = one.pod()?;
        let means = by_uplink(&newer, &far.namespace, &far.addresses)?;
        ensure!(means.iter().all(|mean| *mean > SPLIT), "split: {means:?}");
        pod.delete()?;
        wait_until("the end of the problem", PATIENCE, || {
            let problems = &one.status()?["problems"];
            ensure!(problems.as_array().is_some_and(Vec::is_empty), "{problems}");
            Ok(())
        })
    });
}

/// Another way to the world may be by another device.
#[test]
fn auto_asks_the_device_to_the_world_too() {
    Cluster::builder(Mode::Direct).without_agents().test(|cluster| {
        let one = cluster.node(1);
        set_sizes(&one.namespace, "eth0", SET)?;
        one.namespace.ip("link add wan type veth peer name wanp\nlink set wanp up\n\
             link set wan up\naddress add 198.51.100.1/24 dev wan\n\
             route replace default via 198.51.100.2 dev wan")?;
        start(cluster, &[])?;
        let why = why(one)?;
        ensure!(why == "wan takes 65536 of IPv4, eth0 takes 200000 of IPv6", "{why}");
        Ok(())
    });
}

/// Each node has what its uplink had.
fn uplink_is(node: &Node, wanted: [u64; 2]) -> Result<()> {
    wait_until("the uplink", PATIENCE, || {
        let now = sizes(&node.namespace, "eth0")?;
        ensure!(now == wanted, "{now:?}: {}", why(node)?);
        Ok(())
    })
}

#[test]
fn the_uplink_gets_back_what_it_had_when_no_pod_needs_it_raised() {
    started(Cluster::builder(Mode::Direct), ON, |cluster| {
        let (one, two) = (cluster.node(1), cluster.node(2));
        uplink_is(one, [MOST, LEGACY])?;
        let (pod, far) = (one.pod()?, two.pod()?);
        restart(one, &["--big-tcp", "off"])?;
        let because = why(one)?;
        ensure!(because.contains("eth0 stays raised until 1 pods"), "{because}");
        all_larger(&by_uplink(&pod, &far.namespace, &far.addresses)?)?;
        let newer = one.pod()?;
        ensure!(sizes(&newer.namespace, "eth0")? == [LEGACY, LEGACY], "larger");
        pod.delete()?;
        uplink_is(one, [LEGACY, LEGACY])?;
        wait_until("the end of the record", PATIENCE, || {
            ensure!(!one.directory.join("uplinks.json").exists(), "it is there");
            Ok(())
        })?;
        // What has been set by somebody else since is not ours.
        two.kill_agent();
        far.delete()?;
        set_sizes(&two.namespace, "eth0", SET)?;
        restart(two, &["--big-tcp", "off"])?;
        ensure!(sizes(&two.namespace, "eth0")? == [u64::from(SET); 2], "it was changed");
        Ok(())
    });
}

#[test]
fn somebody_who_lowers_the_uplink_is_undone_and_uninstall_puts_it_back() {
    started(Cluster::builder(Mode::Direct).nodes(1), ON, |cluster| {
        let one = cluster.node(1);
        set_sizes(&one.namespace, "eth0", 100_000)?;
        uplink_is(one, [MOST, LEGACY])?;
        one.stop_agent()?;
        let [bin, net] = ["bin", "net.d"].map(|name| one.directory.join(name));
        let mut uninstall = one.agent_verb("uninstall");
        uninstall.arg("--cni-bin-dir").arg(bin).arg("--cni-conf-dir").arg(net);
        let said = command::run(&mut uninstall)?;
        ensure!(
            said.contains("removed the size of packets that --big-tcp on gave to eth0"),
            "{said}"
        );
        let now = sizes(&one.namespace, "eth0")?;
        ensure!(now == [LEGACY, LEGACY], "{now:?}");
        Ok(())
    });
}

/// As when the mode was changed while pods lived.
#[test]
fn larger_packets_are_segmented_before_the_tunnel() {
    Cluster::builder(Mode::Vxlan).test(|cluster| {
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (pod, far) = (one.pod()?, two.pod()?);
        // An uplink that would take them whole, with whatever length the outer header says.
        for (namespace, device) in [(&one.namespace, "eth0"), (&pod.namespace, "eth0")] {
            set_sizes(namespace, device, SET)?;
        }
        let lan = &cluster.fabric.lan;
        for port in ["node1", "node2"] {
            set_sizes(lan, port, SET)?;
        }
        for address in &far.addresses {
            let to = (&far.namespace, *address);
            all_larger(&[mean(&pod.namespace, to, (&pod.namespace, "eth0"))?])?;
        }
        let means = by_uplink(&pod, &far.namespace, &far.addresses)?;
        ensure!(means.iter().all(|mean| *mean < SPLIT), "not segmented: {means:?}");
        Ok(())
    });
}

#[test]
fn on_with_a_tunnel_is_refused_with_what_to_do() {
    Cluster::builder(Mode::Vxlan).nodes(1).without_agents().test(|cluster| {
        let node: &Arc<Node> = cluster.node(1);
        let output = command::output(node.agent_command().args(ON))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains("--encapsulation direct"), "{said}");
        ensure!(sizes(&node.namespace, "eth0")? == [LEGACY, LEGACY], "the uplink was changed");
        let doctor = node.agent_verb("doctor").args(["--output", "json"]).output()?;
        let findings: Value = serde_json::from_slice(&doctor.stdout)?;
        ensure!(findings.is_array(), "{findings}");
        Ok(())
    });
}
