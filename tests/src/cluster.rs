//! A cluster: nodes, their agents, the network between them, and the world.

use std::fs;
use std::sync::Arc;

use anyhow::Result;

use crate::binaries;
use crate::fabric::{Fabric, Layout, Place};
use crate::namespace::Namespace;
use crate::node::Node;
use crate::run::{Kind, Run};

/// The pod networks of all clusters.
pub const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

/// How packets reach other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Direct,
    /// Inside VXLAN.
    Vxlan,
    /// Each as its sender reaches the node.
    Auto,
}

impl Mode {
    /// Those in which all packets go one way.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Vxlan];

    /// As the agent's command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
            Self::Auto => "auto",
        }
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Builder {
    kind: Kind,
    nodes: u8,
    mode: Mode,
    layout: Layout,
    strict_rp_filter: bool,
    large_pools: bool,
    start_agents: bool,
    listen: bool,
    keep: bool,
}

impl Builder {
    /// Names the demo's way.
    #[must_use]
    pub fn of_demo(mut self) -> Self {
        self.kind = Kind::Demo;
        self
    }

    /// Names the benchmarks' way.
    #[must_use]
    pub fn of_bench(mut self) -> Self {
        self.kind = Kind::Bench;
        self
    }

    /// Gives each node room for 4,000 pods, not 250.
    #[must_use]
    pub fn large_pools(mut self) -> Self {
        self.large_pools = true;
        self
    }

    /// How many nodes; 2 unless told otherwise.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// How the nodes are connected.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets rp_filter to strict on everything of the nodes, before the agents start.
    #[must_use]
    pub fn strict_rp_filter(mut self) -> Self {
        self.strict_rp_filter = true;
        self
    }

    /// Has the agents serve health and metrics at [`MONITOR_PORT`](crate::node::MONITOR_PORT).
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.listen = true;
        self
    }

    /// Starts no agents.
    #[must_use]
    pub fn without_agents(mut self) -> Self {
        self.start_agents = false;
        self
    }

    /// Leaves everything up at the end.
    #[must_use]
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Builds it and waits until all agents serve.
    ///
    /// # Errors
    /// When something cannot be made, or an agent does not start.
    pub fn build(self) -> Result<Cluster> {
        let mut run = Run::new(self.kind)?;
        if self.keep {
            run.keep();
            fs::write(run.directory().join(crate::clean::KEPT_FILE), "")?;
        }
        fs::write(run.directory().join("nodes.toml"), self.node_file())?;
        let fabric = Fabric::new(&run, self.layout)?;
        let nodes = (1..=self.nodes)
            .map(|number| self.node(&run, &fabric, number).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Cluster { nodes, fabric, run };
        if self.start_agents {
            for node in &cluster.nodes {
                node.spawn_agent()?;
            }
            for node in &cluster.nodes {
                node.wait_for_agent()?;
            }
        }
        Ok(cluster)
    }

    /// Builds it and lets a test look at it. When that fails, logs and status of all nodes are shown.
    ///
    /// # Panics
    /// When the cluster cannot be built or the test fails.
    pub fn test(self, test: impl FnOnce(&Cluster) -> Result<()>) {
        let cluster = self.build().unwrap_or_else(|error| panic!("{error:#}"));
        if let Err(error) = test(&cluster) {
            // The cluster is dropped while the panic unwinds: that shows the logs.
            panic!("{error:#}");
        }
    }

    fn node(&self, run: &Run, fabric: &Fabric, number: u8) -> Result<Node> {
        let place = self.place(number);
        let name = format!("{}-node{number}", run.name());
        let namespace = Namespace::new(&name, run.is_kept())?;
        if self.strict_rp_filter {
            namespace.sysctls(&[
                ("ipv4/conf/all/rp_filter", "1"),
                ("ipv4/conf/default/rp_filter", "1"),
            ])?;
        }
        fabric.add_node(&namespace, place)?;
        let (agent, plugin) = (binaries::agent()?, binaries::plugin()?);
        let node = Node::new(run, namespace, place, self.mode, agent, plugin)?;
        Ok(if self.listen { node.listening() } else { node })
    }

    fn place(&self, number: u8) -> Place {
        Place { is_large: self.large_pools, ..Place::new(number, self.layout) }
    }

    fn node_file(&self) -> String {
        let node = |number| {
            let place = self.place(number);
            let [ipv4, ipv6] = place.addresses();
            let [pods4, pods6] = place.pod_cidrs();
            format!(
                "[[node]]\nname = \"node{number}\"\naddresses = [\"{ipv4}\", \"{ipv6}\"]\n\
                 pod_cidrs = [\"{pods4}\", \"{pods6}\"]\n\n"
            )
        };
        (1..=self.nodes).map(node).collect()
    }
}

/// Nodes with agents. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: agents before their network and their directories.
    nodes: Vec<Arc<Node>>,
    /// What is between the nodes.
    pub fabric: Fabric,
    run: Run,
}

impl Cluster {
    /// Begins to describe one.
    pub fn builder(mode: Mode) -> Builder {
        Builder {
            kind: Kind::Test,
            nodes: 2,
            mode,
            layout: Layout::OneLan,
            strict_rp_filter: false,
            large_pools: false,
            start_agents: true,
            listen: false,
            keep: false,
        }
    }

    /// The node with this number, from 1 on.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn node(&self, number: usize) -> &Arc<Node> {
        &self.nodes[number - 1]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Its names and directories.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// A machine on the first LAN that is no node: 192.168.1.66 and fd00:1::66.
    ///
    /// # Errors
    /// When there is one.
    pub fn stranger(&self) -> Result<Namespace> {
        let name = format!("{}-stranger", self.run.name());
        let stranger = Namespace::new(&name, self.run.is_kept())?;
        self.fabric.plug("stranger", &stranger, 1)?;
        stranger.ip("address add 192.168.1.66/24 dev eth0\naddress add fd00:1::66/64 dev eth0")?;
        Ok(stranger)
    }

    /// Writes the node file anew, as an editor does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_node_file(&self, text: &str) -> Result<()> {
        let file = self.run.directory().join("nodes.toml");
        let other = file.with_extension("new");
        fs::write(&other, text)?;
        Ok(fs::rename(other, file)?)
    }
}
