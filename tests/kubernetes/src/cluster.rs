//! A cluster: a control plane, nodes, and their pod network.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use harness::clean::KEPT_FILE;
use harness::cluster::CLUSTER_CIDRS;
use harness::fabric::{Fabric, Layout};
use harness::run::{Kind, Run};
use harness::wait::wait_until;
use serde_json::Value;

use crate::containerd::Containerd;
use crate::control::Control;
use crate::kubectl::{condition, message};
use crate::network::{Member, Network};
use crate::node::Node;
use crate::report::Report;
use crate::view::{View, read_members};
use crate::{dns, images, kubelet, programs, proxy};

const READY_TIME_MAX: Duration = Duration::from_secs(120);
const END_TIME_MAX: Duration = Duration::from_secs(90);

/// What to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) network: Network,
    pub(crate) containerd: Containerd,
    pub(crate) proxy: proxy::Mode,
    pub(crate) nodes: u8,
    pub(crate) keep: bool,
}

impl Plan {
    /// As tables show it.
    pub(crate) fn name(&self) -> String {
        format!(
            "{}, containerd {}, kube-proxy {}",
            self.network.name(),
            if self.containerd == Containerd::Two { "2" } else { "1" },
            self.proxy.name()
        )
    }
}

/// A cluster. Everything is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Dropped in this order: what uses something before that.
    pub(crate) nodes: Vec<Node>,
    pub(crate) members: Vec<Member>,
    pub(crate) control: Control,
    pub(crate) fabric: Fabric,
    pub(crate) plan: Plan,
    run: Run,
}

impl Cluster {
    /// Starts it, up to nodes that lack nothing but a pod network.
    pub(crate) fn start(plan: Plan, report: &mut Report) -> Result<Self> {
        let began = Instant::now();
        // Of an earlier run; of this one more may be saved bit by bit.
        match fs::remove_dir_all(log_directory(plan)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let archives = images::make()?;
        let mut run = Run::new(Kind::Kubernetes)?;
        if plan.keep {
            run.keep();
            fs::write(run.directory().join(KEPT_FILE), "")?;
        }
        report.did("images", began);
        let began = Instant::now();
        let fabric = Fabric::new(&run, Layout::OneLan)?;
        let mut nodes = (1..=plan.nodes)
            .map(|number| Node::new(&run, &fabric, number))
            .collect::<Result<Vec<_>>>()?;
        for node in &mut nodes {
            plan.containerd.start(node)?;
        }
        let control = start_beside(&run, &fabric, &nodes, &archives, plan)?;
        report.did("control plane, containerd on each node, images loaded", began);
        let began = Instant::now();
        for node in &mut nodes {
            kubelet::start(node, &control.certificates, &plan.network.taints())?;
        }
        let mut cluster = Self { nodes, members: Vec::new(), control, fabric, plan, run };
        cluster.learn_members()?;
        report.did("kubelets, with pod networks given", began);
        Ok(cluster)
    }

    /// Waits for nodes with pod networks, to which the control plane then knows the way.
    pub(crate) fn learn_members(&mut self) -> Result<()> {
        let count = self.nodes.len();
        let mut members = Vec::new();
        self.control.wait("nodes with pod networks", |control| {
            members = read_members(&control.kubectl, |_| true)?;
            members.retain(|member| member.pod_cidrs.len() == CLUSTER_CIDRS.len());
            ensure!(members.len() == count, "{} of {count} nodes", members.len());
            Ok(())
        })?;
        for member in &members {
            for (cidr, address) in member.pod_cidrs.iter().zip(&member.addresses) {
                self.control.namespace.ip(&format!("route replace {cidr} via {address}"))?;
            }
        }
        self.members = members;
        Ok(())
    }

    /// Asserts that nodes are not Ready, for want of a pod network.
    pub(crate) fn assert_not_ready(&self) -> Result<String> {
        wait_until("nodes that lack a network", READY_TIME_MAX, || {
            for node in self.get_nodes()? {
                let message = message(&node, "Ready");
                ensure!(!condition(&node, "Ready"), "{} is Ready", node["metadata"]["name"]);
                ensure!(message.contains("NetworkPluginNotReady"), "not ready: {message}");
            }
            Ok(format!("{} nodes wait for the network plugin", self.nodes.len()))
        })
    }

    /// Starts kube-proxy, by which pods on the nodes' own network reach the API server, and sets up the pod
    /// network; waits until every node is Ready.
    pub(crate) fn install_network(&mut self) -> Result<String> {
        for node in &mut self.nodes {
            proxy::start(node, &self.control.certificates, self.plan.proxy)?;
        }
        let Self { plan, nodes, members, control, .. } = self;
        plan.network.install(nodes, members, plan.containerd, &control.kubectl)?;
        self.wait_until_ready()?;
        Ok(format!("{} nodes", self.nodes.len()))
    }

    /// Waits until every node is there and Ready.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        wait_until("nodes that are Ready", READY_TIME_MAX, || {
            let nodes = self.get_nodes()?;
            ensure!(nodes.len() == self.nodes.len(), "{} nodes", nodes.len());
            for node in nodes {
                ensure!(condition(&node, "Ready"), "{} is not Ready", node["metadata"]["name"]);
            }
            Ok(())
        })
    }

    /// Starts CoreDNS.
    pub(crate) fn start_dns(&mut self) -> Result<String> {
        self.control.kubectl.apply(&dns::objects())?;
        self.control.kubectl.wait_for_pods(dns::NAMESPACE, READY_TIME_MAX)?;
        Ok("Ready".to_owned())
    }

    /// Ends a node as a loss of power does, and starts it again with nothing of before but its name.
    pub(crate) fn reboot(&mut self, at: usize) -> Result<()> {
        drop(self.nodes.remove(at));
        let number = u8::try_from(at + 1)?;
        self.fabric.unplug(&format!("node{number}"))?;
        let mut node = Node::new(&self.run, &self.fabric, number)?;
        let Plan { containerd, proxy: mode, network, .. } = self.plan;
        containerd.start(&mut node)?;
        containerd.import(&node, &images::make()?)?;
        network.restore(&node, containerd)?;
        kubelet::start(&mut node, &self.control.certificates, &network.taints())?;
        proxy::start(&mut node, &self.control.certificates, mode)?;
        self.nodes.insert(at, node);
        Ok(())
    }

    /// As its users have it.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            kubectl: &self.control.kubectl,
            members: &self.members,
            network: self.plan.network,
            world: Some(&self.fabric.world),
        }
    }

    /// What the pod network keeps on each node.
    pub(crate) fn kept(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for node in &self.nodes {
            let kept = self.plan.network.kept(node).with_context(|| node.name.clone())?;
            all.extend(kept.into_iter().map(|what| format!("{}: {what}", node.name)));
        }
        Ok(all)
    }

    /// Waits until the pod network keeps no more than it did.
    pub(crate) fn wait_until_kept(&self, before: &BTreeSet<String>) -> Result<()> {
        wait_until("the end of what pods had", END_TIME_MAX, || {
            let now = self.kept()?;
            let left: Vec<&String> = now.difference(before).collect();
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })
    }

    /// Copies all logs to where they outlive the cluster, and returns that directory.
    pub(crate) fn save_logs(&self) -> Result<PathBuf> {
        let directory = log_directory(self.plan)?;
        let control = [("control", &self.control.directory)];
        let nodes = self.nodes.iter().map(|node| (node.name.as_str(), &node.directory));
        for node in &self.nodes {
            node.copy_pod_logs(&directory.join(&node.name))?;
        }
        for (name, from) in nodes.chain(control) {
            fs::create_dir_all(directory.join(name))?;
            for entry in fs::read_dir(from)?.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    fs::copy(&path, directory.join(name).join(entry.file_name()))?;
                }
            }
        }
        Ok(directory)
    }

    /// Commands for a cluster that stays.
    pub(crate) fn look_around(&self) -> Result<String> {
        let path = self.control.namespace.path();
        let (path, kubeconfig) = (path.display(), self.control.kubectl.kubeconfig.display());
        let kubectl = programs::built("kubectl")?;
        let first = &self.nodes[0];
        let enter = format!("nsenter -t {} -m -u -n -p", first.enclosure.first());
        Ok(format!(
            "It stays up. Look around:\n  \
             nsenter --net={path} {} --kubeconfig {kubeconfig} get pods -A -o wide\n  \
             {enter} ip route\n  less {}\nRemove it:\n  cargo xtask e2e --clean",
            kubectl.display(),
            self.run.directory().join("node1/kubelet.log").display()
        ))
    }

    /// The node objects.
    pub(crate) fn get_nodes(&self) -> Result<Vec<Value>> {
        let nodes = self.control.kubectl.get("nodes")?;
        Ok(nodes["items"].as_array().context("items")?.clone())
    }
}

/// Starts the control plane while the nodes load their images.
fn start_beside(
    run: &Run,
    fabric: &Fabric,
    nodes: &[Node],
    archives: &[PathBuf],
    plan: Plan,
) -> Result<Control> {
    thread::scope(|scope| {
        let imports: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| plan.containerd.import(node, archives)))
            .collect();
        // On this thread: its services end with it.
        let control = Control::start(run, fabric, plan.containerd);
        for import in imports {
            import.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        control
    })
}

/// Where the logs of such a cluster are saved.
fn log_directory(plan: Plan) -> Result<PathBuf> {
    let name = plan.name().replace(", ", "-").replace(' ', "-");
    Ok(programs::directory()?.join("logs").join(name))
}
