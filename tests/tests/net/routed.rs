//! Routers between the nodes that know the pod networks; narrow links; hops.

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::fabric::Layout;
use tests::pod::Pod;
use tests::probe;
use tests::server::Server;

const MIDDLE_MTU: u32 = 1400;

#[test]
fn direct_over_routers() {
    Cluster::builder(Mode::Direct)
        .layout(Layout::Routed { middle_mtu: 1500 })
        .strict_rp_filter()
        .test(|cluster| reach_both_ways(cluster).map(drop));
}

#[test]
fn vxlan_over_routers() {
    Cluster::builder(Mode::Vxlan)
        .layout(Layout::Routed { middle_mtu: 1500 })
        .strict_rp_filter()
        .test(|cluster| reach_both_ways(cluster).map(drop));
}

#[test]
fn auto_over_routers() {
    let layout = Layout::Routed { middle_mtu: 1500 };
    Cluster::builder(Mode::Auto).layout(layout).test(|cluster| {
        reach_both_ways(cluster)?;
        ensure!(cluster.node(1).counter("pod_to_direct")? == 0, "plain over a router");
        ensure!(cluster.node(1).counter("pod_to_tunnel")? > 0, "nothing through the tunnel");
        Ok(())
    });
}

#[test]
fn auto_on_one_link() {
    Cluster::builder(Mode::Auto).nodes(2).test(|cluster| {
        reach_both_ways(cluster)?;
        ensure!(cluster.node(1).counter("pod_to_tunnel")? == 0, "tunnelled on one link");
        Ok(())
    });
}

#[test]
fn auto_where_an_address_comes_without_the_prefix_of_its_link() {
    // As DHCPv6 gives addresses: without the prefix of the link.
    Cluster::builder(Mode::Auto).nodes(2).without_agents().test(|cluster| {
        cluster.node(2).namespace.ip(
            "address del 192.168.1.12/24 dev eth0\naddress add 192.168.1.12/32 dev eth0\n\
             address del fd00:1::12/64 dev eth0\naddress add fd00:1::12/128 dev eth0\n\
             route add 192.168.1.0/24 dev eth0\nroute add fd00:1::/64 dev eth0",
        )?;
        for node in cluster.nodes() {
            node.spawn_agent()?;
        }
        for node in cluster.nodes() {
            node.wait_for_agent()?;
        }
        reach_both_ways(cluster)?;
        for node in cluster.nodes() {
            ensure!(node.counter("pod_to_tunnel")? == 0, "{}: tunnelled on one link", node.name);
        }
        Ok(())
    });
}

#[test]
fn a_narrow_link_in_the_middle_is_no_black_hole_in_direct_mode() {
    let layout = Layout::Routed { middle_mtu: MIDDLE_MTU };
    Cluster::builder(Mode::Direct).layout(layout).test(|cluster| {
        let (one, two) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
        too_big_is_answered(&one, &two, 0, 28)?;
        too_big_is_answered(&one, &two, 1, 48)?;
        reach_both_ways(cluster)
    });
}

#[test]
fn a_narrow_link_in_the_middle_is_no_black_hole_in_vxlan_mode() {
    let layout = Layout::Routed { middle_mtu: MIDDLE_MTU };
    Cluster::builder(Mode::Vxlan).layout(layout).test(reach_both_ways);
}

/// A packet that must not be fragmented and does not fit is answered with the size that does.
fn too_big_is_answered(from: &Pod, to: &Pod, family: usize, headers: u32) -> Result<()> {
    let fits = (MIDDLE_MTU - headers).to_string();
    let too_big = (MIDDLE_MTU - headers + 1).to_string();
    let address = to.addresses[family];
    let mut ping = from.namespace.command("ping");
    ping.args(["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &too_big, &address.to_string()]);
    let output = command::output(&mut ping)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).to_lowercase();
    ensure!(said.contains("mtu") && said.contains(&MIDDLE_MTU.to_string()), "{said}");
    probe::ping_with(&from.namespace, address, &["-M", "do", "-s", &fits]).map(drop)
}

/// Also in the direction in which path MTU discovery has not been tried.
fn reach_both_ways(cluster: &Cluster) -> Result<()> {
    let (one, two) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
    let _servers = [
        Server::start(&one.namespace, &one.addresses)?,
        Server::start(&two.namespace, &two.addresses)?,
    ];
    for (from, to) in [(&one, &two), (&two, &one)] {
        for address in &to.addresses {
            probe::tcp(&from.namespace, *address, probe::BULK_BYTES)?;
            probe::all(&from.namespace, *address)?;
        }
    }
    Ok(())
}

#[test]
fn the_largest_packet_fits_and_one_byte_more_does_not() {
    for (mode, mtu) in [(Mode::Direct, 1500), (Mode::Vxlan, 1450)] {
        Cluster::builder(mode).test(|cluster| {
            let (one, two) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
            for (address, headers) in two.addresses.iter().zip([28, 48]) {
                let ping = |bytes: u32| {
                    probe::ping_with(
                        &one.namespace,
                        *address,
                        &["-M", "do", "-s", &bytes.to_string()],
                    )
                };
                ping(mtu - headers)?;
                ensure!(ping(mtu - headers + 1).is_err(), "more than {mtu} bytes passed");
            }
            Ok(())
        });
    }
}

/// The tunnel's headers are on no packet between them.
#[test]
fn pods_of_one_node_exchange_what_the_uplink_carries() {
    Cluster::builder(Mode::Vxlan).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let (one, two) = (node.pod()?, node.pod()?);
        for (address, headers) in two.addresses.iter().zip([28, 48]) {
            let bytes = (1500 - headers).to_string();
            probe::ping_with(&one.namespace, *address, &["-M", "do", "-s", &bytes])?;
        }
        Ok(())
    });
}

#[test]
fn traceroute_shows_every_node_as_a_hop() {
    for mode in Mode::ALL {
        Cluster::builder(mode).test(|cluster| {
            let (one, two) = (cluster.node(1), cluster.node(2));
            let (pod1, pod2) = (one.pod()?, two.pod()?);
            for family in 0..2 {
                let to = pod2.addresses[family];
                let trace = pod1.namespace.run(&format!("traceroute -n -q 1 -w 2 -m 5 {to}"))?;
                let hops: Vec<&str> =
                    trace.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).collect();
                let wanted =
                    [one.gateways[family], two.gateways[family], to].map(|ip| ip.to_string());
                ensure!(hops == wanted, "{trace}");
            }
            Ok(())
        });
    }
}
