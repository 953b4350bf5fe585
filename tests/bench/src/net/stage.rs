//! Nodes, machines, pods, and the ways between them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::fabric::{Fabric, WORLD};
use tests::namespace::Namespace;
use tests::node::Node;
use tests::pod::Pod;
use tests::reference::machine::{self, Kind, Machine, ReferencePod};
use tests::reference::{self, Pair, least};
use tests::report::progress;
use tests::run::Run;

use super::large;
use super::load::Servers;
use super::way::{Contender, Path, Way};

/// All that is measured beside each other.
pub(super) struct Stage {
    // Dropped in this order: servers before their namespaces.
    _servers: Servers,
    _least: Vec<(Pair, Vec<OwnedFd>)>,
    _machines: Vec<Machine>,
    _pods: Vec<Pod>,
    /// Nodes and machines with an uplink.
    uplinks: Vec<Namespace>,
    ways: Vec<Way>,
    clusters: [Cluster; 3],
}

/// What is put together first.
#[derive(Default)]
struct Parts {
    least: Vec<(Pair, Vec<OwnedFd>)>,
    machines: Vec<Machine>,
    pods: Vec<Pod>,
    uplinks: Vec<Namespace>,
    ways: Vec<Way>,
}

impl Stage {
    /// Makes it.
    ///
    /// # Errors
    /// When something cannot be made.
    pub(super) fn new() -> Result<Self> {
        let bar = progress("nodes, machines and pods", 7);
        let mut parts = Parts::default();
        let build = |mode| Cluster::builder(mode).of_bench().build();
        let clusters = [build(Mode::Direct)?, build(Mode::Vxlan)?, with_big_tcp()?];
        bar.inc(1);
        let [direct, vxlan, big_tcp] = &clusters;
        let (run, fabric) = (direct.run(), &direct.fabric);
        parts.yardsticks(run, fabric)?;
        bar.inc(1);
        for (kind, contender) in [(Kind::Bridge, Contender::Bridge), (Kind::Ptp, Contender::Ptp)] {
            parts.reference(run, fabric, kind, contender)?;
            bar.inc(1);
        }
        for (kind, contender) in [
            (Kind::BridgeVxlan, Contender::BridgeVxlan),
            (Kind::BridgeVxlanUnchecked, Contender::BridgeVxlanUnchecked),
        ] {
            parts.bridge_and_vxlan(run, fabric, kind, contender)?;
        }
        bar.inc(1);
        parts.podwire_direct(direct)?;
        parts.podwire_big_tcp(big_tcp)?;
        parts.podwire_vxlan(vxlan)?;
        bar.inc(1);
        let servers = parts.servers()?;
        bar.finish_and_clear();
        Ok(Self {
            _servers: servers,
            _least: parts.least,
            _machines: parts.machines,
            _pods: parts.pods,
            uplinks: parts.uplinks,
            ways: parts.ways,
            clusters,
        })
    }

    /// All ways, with the offloads of the uplinks as they are.
    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// Switches the offloads of all uplinks off but for GRO, as if they were at a wire; the ways over it.
    ///
    /// # Errors
    /// When ethtool cannot.
    pub(super) fn make_wires(&self) -> Result<Vec<Way>> {
        for uplink in &self.uplinks {
            uplink.run("ethtool -K eth0 tso off gso off tx off gro on")?;
        }
        for cluster in &self.clusters {
            cluster.fabric.make_wires()?;
        }
        let of_wire = |way: &Way| {
            let path = way.label.path.on_wire()?;
            let mut wire = way.clone();
            wire.label.path = path;
            Some(wire)
        };
        Ok(self.ways.iter().filter_map(of_wire).collect())
    }
}

impl Parts {
    fn add(&mut self, path: Path, contender: Contender, ends: [&Namespace; 2], to: &[IpAddr]) {
        let [client, server] = ends;
        self.ways.extend(Way::both(path, contender, client, server, to));
    }

    fn add_pair(&mut self, path: Path, contender: Contender, pair: &Pair) {
        self.add(path, contender, [&pair.client, &pair.server], &pair.addresses);
    }

    fn yardsticks(&mut self, run: &Run, fabric: &Fabric) -> Result<()> {
        let bare = reference::veth_pair(run)?;
        let of_one = least::pods(run)?;
        let of_two = least::pods_of_two_nodes(run, fabric)?;
        let hosts = reference::hosts(run, fabric)?;
        self.add_pair(Path::SameNode, Contender::Bare, &bare);
        self.add_pair(Path::SameNode, Contender::Least, &of_one.0);
        self.add_pair(Path::Direct, Contender::Least, &of_two.0);
        self.uplinks.extend(of_two.0.machines.clone());
        self.least.extend([of_one, of_two]);
        for path in [Path::Direct, Path::Vxlan] {
            self.add_pair(path, Contender::Hosts, &hosts);
        }
        let own = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])];
        self.add(Path::Loopback, Contender::Loopback, [&bare.client, &bare.client], &own);
        self.uplinks.extend(hosts.machines);
        Ok(())
    }

    /// A plugin with routes between its machines.
    fn reference(
        &mut self,
        run: &Run,
        fabric: &Fabric,
        kind: Kind,
        contender: Contender,
    ) -> Result<()> {
        let [one, two] = machine::machines(run, fabric, kind)?;
        let (client, near, far) = (one.pod(1)?, one.pod(2)?, two.pod(1)?);
        let to_pod = |pod: &ReferencePod| (pod.namespace.clone(), pod.addresses);
        for (path, (server, addresses)) in
            [(Path::SameNode, to_pod(&near)), (Path::Direct, to_pod(&far))]
        {
            self.add(path, contender, [&client.namespace, &server], &addresses);
        }
        let ends = [&client.namespace, &one.namespace];
        self.add(Path::OwnNode, contender, ends, &one.addresses);
        self.add(Path::World, contender, [&client.namespace, &fabric.world], &world());
        self.uplinks.extend([one.namespace.clone(), two.namespace.clone()]);
        self.machines.extend([one, two]);
        Ok(())
    }

    fn bridge_and_vxlan(
        &mut self,
        run: &Run,
        fabric: &Fabric,
        kind: Kind,
        contender: Contender,
    ) -> Result<()> {
        let pair = machine::pair(run, fabric, kind)?;
        self.add_pair(Path::Vxlan, contender, &pair);
        self.uplinks.extend(pair.machines);
        Ok(())
    }

    fn podwire_direct(&mut self, cluster: &Cluster) -> Result<()> {
        let contender = Contender::Podwire;
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (client, near, far) = (one.pod()?, one.pod()?, two.pod()?);
        for (path, pod) in [(Path::SameNode, &near), (Path::Direct, &far)] {
            let ends = [&client.namespace, &pod.namespace];
            self.add(path, contender, ends, &pod.addresses);
        }
        let ends = [&client.namespace, &one.namespace];
        self.add(Path::OwnNode, contender, ends, &one.addresses);
        let world_ends = [&client.namespace, &cluster.fabric.world];
        self.add(Path::World, contender, world_ends, &world());
        self.add_nodes([one, two]);
        self.pods.extend([client, near, far]);
        Ok(())
    }

    fn podwire_big_tcp(&mut self, cluster: &Cluster) -> Result<()> {
        let (one, two) = (cluster.node(1), cluster.node(2));
        let (client, near, far) = (one.pod()?, one.pod()?, two.pod()?);
        for (path, pod) in [(Path::SameNode, &near), (Path::Direct, &far)] {
            let ends = [&client.namespace, &pod.namespace];
            self.add(path, Contender::PodwireBigTcp, ends, &pod.addresses);
        }
        self.add_nodes([one, two]);
        self.pods.extend([client, near, far]);
        Ok(())
    }

    fn podwire_vxlan(&mut self, cluster: &Cluster) -> Result<()> {
        let (client, far) = (cluster.node(1).pod()?, cluster.node(2).pod()?);
        let ends = [&client.namespace, &far.namespace];
        self.add(Path::Vxlan, Contender::Podwire, ends, &far.addresses);
        self.add_nodes([cluster.node(1), cluster.node(2)]);
        self.pods.extend([client, far]);
        Ok(())
    }

    fn add_nodes(&mut self, nodes: [&Arc<Node>; 2]) {
        self.uplinks.extend(nodes.map(|node| node.namespace.clone()));
    }

    fn servers(&self) -> Result<Servers> {
        servers(&self.ways)
    }
}

/// A cluster whose packets may have more than 64 KiB, between its nodes, too.
fn with_big_tcp() -> Result<Cluster> {
    let cluster = Cluster::builder(Mode::Direct).of_bench().without_agents().build()?;
    large::carry(&cluster.fabric)?;
    for node in cluster.nodes() {
        node.spawn_agent_with(&["--big-tcp", "on"])?;
    }
    cluster.nodes().iter().try_for_each(|node| node.wait_for_agent())?;
    Ok(cluster)
}

/// A server at each address that a way leads to.
pub(super) fn servers(ways: &[Way]) -> Result<Servers> {
    let mut seen = BTreeSet::new();
    let all = ways.iter().map(|way| (&way.server, way.address));
    Servers::start(all.filter(|(server, at)| seen.insert((server.name().to_owned(), *at))))
}

/// The addresses of a host outside.
pub(super) fn world() -> Vec<IpAddr> {
    WORLD.iter().filter_map(|address| address.parse().ok()).collect()
}

/// Versions of what packets meet.
///
/// # Errors
/// When a tool is missing.
pub(super) fn plugins_version() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Version}", "containernetworking-plugins"]);
    command::run(&mut query)
}
