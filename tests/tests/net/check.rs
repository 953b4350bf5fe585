//! CHECK names what is not as ADD left it, also without the agent.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use dataplane_core::abi::{Addr, PodEntry};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::CniCall;
use tests::pod::Pod;

use super::traces;

const CHECK_FAILED: u64 = 102;

/// What somebody does to a pod, and what CHECK says then.
type Damage = (fn(&Pod) -> Result<()>, &'static str);

const DAMAGES: [Damage; 19] = [
    (|pod| inside(pod, &format!("address delete {}/32 dev eth0", pod.addresses[0])), "not on eth0"),
    (
        |pod| inside(pod, &format!("address delete {}/128 dev eth0", pod.addresses[1])),
        "not on eth0",
    ),
    (|pod| inside(pod, "route delete default"), "default route by 169.254.1.1"),
    (|pod| inside(pod, "-6 route delete default"), "default route by fe80::1"),
    (|pod| inside(pod, "neigh delete 169.254.1.1 dev eth0"), "neighbour entry of 169.254.1.1"),
    (|pod| inside(pod, "neigh change 169.254.1.1 dev eth0 nud stale"), "neighbour entry of"),
    (
        |pod| inside(pod, "neigh change fe80::1 lladdr 02:00:00:00:00:07 dev eth0"),
        "neighbour fe80::1: 02:00:00:00:00:07",
    ),
    (|pod| inside(pod, "route change default dev eth0"), "default route by 169.254.1.1"),
    (|pod| inside(pod, "link set eth0 mtu 1400"), "MTU of eth0: 1400"),
    (|pod| outside(pod, "link set {} mtu 1400"), "MTU of pw"),
    (|pod| outside(pod, "link set {} address 02:00:00:00:00:07"), "MAC of pw"),
    (|pod| inside(pod, "link set eth0 address 02:00:00:00:00:07"), "MAC of eth0"),
    (|pod| bpftool("link detach", &link_pin(pod, "ingress")?, &[]), "at ingress"),
    (|pod| bpftool("link detach", &link_pin(pod, "egress")?, &[]), "at egress"),
    (|pod| forget(pod, pod.addresses[1]), "is not in the map pw_pods"),
    (|pod| rewrite(pod, pod.addresses[0]), "interface of 10.244.1."),
    (|pod| widen(pod), "is not on eth0"),
    (|pod| outside(pod, "link set {} down"), "is up: false, not true"),
    (|pod| outside(pod, "link delete {}"), "eth0 is gone"),
];

#[test]
fn check_names_each_difference_without_the_agent() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pods: Vec<Pod> = DAMAGES.iter().map(|_| node.pod()).collect::<Result<_>>()?;
        let untouched = node.pod()?;
        well(&untouched)?;
        // It would put things right.
        node.kill_agent();
        for (pod, (damage, wanted)) in pods.iter().zip(DAMAGES) {
            well(pod)?;
            damage(pod).context(wanted)?;
            let error = traces::check(pod)?.err().with_context(|| format!("not seen: {wanted}"))?;
            ensure!(error["code"] == CHECK_FAILED, "{error}");
            ensure!(error["details"].as_str().is_some_and(|d| d.contains(wanted)), "{error}");
        }
        well(&untouched)
    });
}

#[test]
fn check_needs_the_result_of_add() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let pod = cluster.node(1).pod()?;
        let error = pod.call("CHECK")?.err().context("it worked without prevResult")?;
        ensure!(error["code"] == 7 && error.to_string().contains("prevResult"), "{error}");
        Ok(())
    });
}

#[test]
fn add_and_check_in_older_versions() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        for (version, has_check) in
            [("0.3.1", false), ("0.4.0", true), ("1.0.0", true), ("1.1.0", true)]
        {
            let pod = node.bare_pod()?;
            let netns = pod.netns();
            let call =
                |command| CniCall { command, container_id: &pod.container_id, netns: &netns };
            let mut configuration = node.cni_configuration();
            configuration["cniVersion"] = version.into();
            let added = node.cni_with(&call("ADD"), &configuration)?;
            let result = added.map_err(|error| anyhow!("ADD in {version}: {error}"))?;
            ensure!(result["cniVersion"] == version, "{result}");
            let wanted = if version.starts_with("1.") {
                [Value::Null, Value::Null]
            } else {
                ["4", "6"].map(Value::from)
            };
            for (ip, family) in wanted.iter().enumerate() {
                ensure!(result["ips"][ip]["version"] == *family, "{version}: {result}");
            }
            let mtu = &result["interfaces"][1]["mtu"];
            ensure!(mtu.is_u64() == (version == "1.1.0"), "{version}: {result}");
            for previous in [result.clone(), chained(result)?] {
                configuration["prevResult"] = previous;
                match node.cni_with(&call("CHECK"), &configuration)? {
                    Ok(_) => ensure!(has_check, "CHECK worked in {version}"),
                    Err(error) => ensure!(!has_check && error["code"] == 1, "{version}: {error}"),
                }
            }
            pod.delete()?;
        }
        Ok(())
    });
}

/// With VXLAN what leads to other nodes has a smaller MTU than the interface.
#[test]
fn check_compares_the_mtu_of_routes() {
    Cluster::builder(Mode::Vxlan).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.bare_pod()?;
        let netns = pod.netns();
        let call = |command| CniCall { command, container_id: &pod.container_id, netns: &netns };
        let mut configuration = node.cni_configuration();
        configuration["cniVersion"] = "1.1.0".into();
        let result = node.cni_with(&call("ADD"), &configuration)?;
        let result = result.map_err(|error| anyhow!("ADD: {error}"))?;
        ensure!(result["interfaces"][1]["mtu"] == 1500, "{result}");
        let routes = json!([
            { "dst": "0.0.0.0/0", "gw": "169.254.1.1", "mtu": 1450 },
            { "dst": "10.244.1.0/24", "gw": "169.254.1.1" },
            { "dst": "10.244.1.1/32", "gw": "169.254.1.1", "mtu": 1450 },
            { "dst": "::/0", "gw": "fe80::1", "mtu": 1450 },
            { "dst": "fd00:10:244:1::/64", "gw": "fe80::1" },
            { "dst": "fd00:10:244:1::1/128", "gw": "fe80::1", "mtu": 1450 },
        ]);
        ensure!(result["routes"] == routes, "{result}");
        configuration["prevResult"] = result;
        let checked = || node.cni_with(&call("CHECK"), &configuration);
        checked()?.map_err(|error| anyhow!("CHECK: {error}"))?;
        inside(&pod, "route change default via 169.254.1.1 dev eth0 mtu 1500")?;
        let error = checked()?.err().context("CHECK did not see it")?.to_string();
        ensure!(
            error.contains("MTU of the default route by 169.254.1.1: 1500, not 1450"),
            "{error}"
        );
        pod.delete()
    });
}

/// As plugins behind ours in the chain leave it: bandwidth adds an interface of the host, others
/// interfaces and addresses of the container, portmap nothing.
fn chained(mut result: Value) -> Result<Value> {
    let interfaces = result["interfaces"].as_array_mut().context("interfaces")?;
    interfaces.push(json!({ "name": "bwp0", "mac": "02:00:00:00:00:09" }));
    interfaces.push(json!({ "name": "net1", "sandbox": "/run/netns/other" }));
    let index = interfaces.len() - 1;
    let ips = result["ips"].as_array_mut().context("ips")?;
    ips.insert(0, json!({ "address": "192.0.2.7/24", "interface": index, "version": "4" }));
    ips.push(json!({ "address": "192.0.2.8/24", "version": "4" }));
    result["dns"] = json!({ "nameservers": ["192.0.2.1"] });
    result["routes"] = json!([{ "dst": "198.51.100.0/24" }]);
    Ok(result)
}

fn well(pod: &Pod) -> Result<()> {
    traces::check(pod)?.map(drop).map_err(|error| anyhow!("CHECK of {}: {error}", pod.container_id))
}

fn inside(pod: &Pod, words: &str) -> Result<()> {
    pod.namespace.run(&format!("ip {words}")).map(drop)
}

/// With the host side's name for the braces.
fn outside(pod: &Pod, words: &str) -> Result<()> {
    let words = words.replace("{}", &pod.host_ifname()?);
    pod.node.namespace.run(&format!("ip {words}")).map(drop)
}

fn link_pin(pod: &Pod, hook: &str) -> Result<PathBuf> {
    Ok(pod.node.bpffs.join(format!("links/{}-{hook}", pod.host_ifname()?)))
}

fn forget(pod: &Pod, address: IpAddr) -> Result<()> {
    let key: Vec<String> = Addr::from(address).bytes.iter().map(u8::to_string).collect();
    bpftool(
        "map delete",
        &pod.node.bpffs.join("maps/pw_pods"),
        &[vec!["key".to_owned()], key].concat(),
    )
}

/// The entry of an address, all zeros.
fn rewrite(pod: &Pod, address: IpAddr) -> Result<()> {
    let key: Vec<String> = Addr::from(address).bytes.iter().map(u8::to_string).collect();
    let zeros = vec!["0".to_owned(); size_of::<PodEntry>()];
    bpftool(
        "map update",
        &pod.node.bpffs.join("maps/pw_pods"),
        &[vec!["key".to_owned()], key, vec!["value".to_owned()], zeros].concat(),
    )
}

/// The address stays, with another prefix; routes and neighbour as they were.
fn widen(pod: &Pod) -> Result<()> {
    let address = pod.addresses[1];
    inside(pod, &format!("address delete {address}/128 dev eth0"))?;
    inside(pod, &format!("address add {address}/64 dev eth0 nodad noprefixroute"))
}

fn bpftool(words: &str, pin: &Path, more: &[String]) -> Result<()> {
    let mut bpftool = Command::new("bpftool");
    bpftool.args(words.split(' ')).arg("pinned").arg(pin).args(more);
    command::run(&mut bpftool).map(drop)
}
