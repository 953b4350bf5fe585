//! The command line, and the order of what is done.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use harness::clean::{self, Which};
use harness::cluster::Mode;
use harness::supervise;

use crate::cluster::{Cluster, Plan};
use crate::containerd::Containerd;
use crate::network::{self, Network};
use crate::report::Report;
use crate::{checks, existing, life, measure, proxy, suite};

/// Starts a real Kubernetes cluster on this machine, and looks at pods in it.
///
/// Nodes and control plane are namespaces; everything is removed at the end. Without options all is done: both ways between
/// nodes, both container runtimes, both kinds of kube-proxy, Kubernetes' own specifications, disturbances, measurements.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask e2e")]
struct Options {
    /// Whose pod network
    #[arg(long, value_enum, default_value_t = network::Kind::Podwire)]
    network: network::Kind,
    /// Only this way to other nodes
    #[arg(long, value_enum)]
    encapsulation: Option<Encapsulation>,
    /// Only with this version of the container runtime [1 beside other options]
    #[arg(long, value_enum)]
    containerd: Option<Containerd>,
    /// Only with kube-proxy forwarding so [nftables beside other options]
    #[arg(long, value_enum)]
    proxy: Option<proxy::Mode>,
    /// Look at the cluster that this kubeconfig leads to, in which Podwire is deployed, and make none
    #[arg(long, value_name = "FILE", conflicts_with_all = ["network", "encapsulation", "containerd", "proxy", "nodes",
        "quick", "measure", "keep"])]
    kubeconfig: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Run this set of Kubernetes' own specifications (tests/kubernetes/suite.toml), and disturb nothing; can be repeated
    #[arg(long, value_name = "SET")]
    suite: Vec<String>,
    /// How many of them at a time
    #[arg(long, default_value_t = 6)]
    processes: u32,
    /// Only pods and services, `direct`
    #[arg(long, conflicts_with = "suite")]
    quick: bool,
    /// Only measure: how soon, how small, how fast beside the reference plugin; all, or what is named
    #[arg(long, value_enum, value_name = "SUBJECT", num_args = 0.., conflicts_with_all = ["suite", "keep"])]
    measure: Option<Vec<measure::Subject>>,
    /// Leave the cluster up, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Only remove what earlier runs left, on purpose too
    #[arg(long)]
    clean: bool,
    /// Be the process that does the work
    #[arg(long, hide = true)]
    worker: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encapsulation {
    /// Plain
    Direct,
    /// Inside VXLAN
    Vxlan,
    /// The manifest as it is shipped, by which each agent chooses: plain here
    Auto,
    /// Plain, then inside VXLAN; one after the other
    Both,
}

impl Encapsulation {
    fn modes(self) -> Vec<Mode> {
        match self {
            Self::Direct => vec![Mode::Direct],
            Self::Vxlan => vec![Mode::Vxlan],
            Self::Auto => vec![Mode::Auto],
            Self::Both => Mode::ALL.to_vec(),
        }
    }
}

/// A cluster, and what is done in it.
#[derive(Debug)]
struct Turn {
    plan: Plan,
    suites: Vec<String>,
    is_disturbed: bool,
}

impl Options {
    /// Nothing narrows it.
    fn is_whole(&self) -> bool {
        let Self { network, encapsulation, containerd, proxy, suite, quick, keep, .. } = self;
        (*network == network::Kind::Podwire && !quick && !keep && suite.is_empty())
            && (encapsulation.is_none() && containerd.is_none() && proxy.is_none())
    }

    /// All that there is, each part at least once.
    fn whole(&self) -> Vec<Turn> {
        use Containerd::{Distribution, Two};
        use proxy::Mode::{Iptables, Nftables};
        let ours = Network::Podwire;
        let turns = [
            (ours(Mode::Direct), Distribution, Nftables, Some("conformance"), true),
            (ours(Mode::Vxlan), Distribution, Nftables, Some("conformance"), true),
            (ours(Mode::Auto), Two, Nftables, Some("conformance"), true),
            (ours(Mode::Vxlan), Two, Nftables, None, false),
            (ours(Mode::Direct), Distribution, Iptables, Some("services"), false),
            (ours(Mode::Vxlan), Distribution, Iptables, None, false),
            (Network::Bridge, Distribution, Nftables, Some(suite::SKIPPED), false),
        ];
        let turn = |(network, containerd, proxy, set, is_disturbed): (_, _, _, Option<&str>, _)| {
            let plan = Plan { containerd, proxy, ..self.plan(network) };
            Turn { plan, suites: set.map(str::to_owned).into_iter().collect(), is_disturbed }
        };
        turns.into_iter().map(turn).collect()
    }

    /// As the options say. A cluster that stays up is left as it is, and `bridge` has no agents.
    fn turns(&self) -> Vec<Turn> {
        if self.is_whole() {
            return self.whole();
        }
        let is_ours = self.network == network::Kind::Podwire;
        let turn = |network| Turn {
            plan: self.plan(network),
            suites: self.suite.clone(),
            is_disturbed: !self.quick && !self.keep && is_ours && self.suite.is_empty(),
        };
        if !is_ours {
            return vec![turn(Network::Bridge)];
        }
        let some =
            if self.quick || self.keep { Encapsulation::Direct } else { Encapsulation::Both };
        let modes = self.encapsulation.unwrap_or(some).modes();
        // Only one can stay up.
        let modes = modes.into_iter().take(if self.keep { 1 } else { usize::MAX });
        modes.map(|mode| turn(Network::Podwire(mode))).collect()
    }

    fn plan(&self, network: Network) -> Plan {
        let Self { nodes, keep, .. } = *self;
        let containerd = self.containerd.unwrap_or(Containerd::Distribution);
        let proxy = self.proxy.unwrap_or(proxy::Mode::Nftables);
        Plan { network, containerd, proxy, nodes, keep }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.clean {
        clean::report(Which::DeadAndKept).map(|()| 0)
    } else if options.worker {
        supervise::as_worker(|| work(&options))
    } else {
        clean::report(Which::Dead).and_then(|()| supervise::run())
    };
    result.map_or_else(
        |error| {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

fn work(options: &Options) -> Result<u8> {
    if let Some(subjects) = &options.measure {
        return measured(options, subjects);
    }
    if let Some(kubeconfig) = &options.kubeconfig {
        let mut report = Report::default();
        if let Err(error) =
            existing::run(kubeconfig, &options.suite, options.processes, &mut report)
        {
            report.check("the cluster", || Err(error));
        }
        return Ok(u8::from(said(&[(existing::name(kubeconfig), report)]) > 0));
    }
    let mut reports = Vec::new();
    for turn in options.turns() {
        eprintln!("\n== {}", turn.plan.name());
        let mut report = Report::default();
        if let Err(error) = in_cluster(options, &turn, &mut report) {
            report.check("the cluster", || Err(error));
        }
        reports.push((turn.plan.name(), report));
    }
    let measured = if options.is_whole() { measured(options, &[])? } else { 0 };
    Ok(measured.max(u8::from(said(&reports) > 0)))
}

/// Shows all reports, and returns how much failed.
fn said(reports: &[(String, Report)]) -> usize {
    let mut failed = 0;
    for (name, report) in reports {
        println!("\n{name}\n{}", report.table());
        failed += report.failed();
    }
    println!(
        "\n{}",
        if failed == 0 { "all is well".to_owned() } else { format!("{failed} failed") }
    );
    failed
}

fn measured(options: &Options, subjects: &[measure::Subject]) -> Result<u8> {
    let mode = options.encapsulation.unwrap_or(Encapsulation::Direct).modes()[0];
    measure::run(options.plan(Network::Podwire(mode)), subjects, options.quick)
}

fn in_cluster(options: &Options, turn: &Turn, report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::start(turn.plan, report)?;
    let ready = report
        .check("no node is Ready without a pod network", || cluster.assert_not_ready())
        && report.check("nodes are Ready with it", || cluster.install_network())
        && report.check("CoreDNS in a pod, beside kube-proxy", || cluster.start_dns());
    if ready {
        checks::run(&cluster, report)?;
        for set in &turn.suites {
            let what = format!("Kubernetes' own suite: {set}");
            report.check(&what, || {
                let logs = cluster.save_logs()?;
                let kubectl = &cluster.control.kubectl;
                let nodes = cluster.nodes.len();
                suite::Runner { kubectl, nodes, processes: options.processes, logs }.run(set)
            });
        }
        // At its end Podwire is uninstalled.
        if turn.is_disturbed {
            life::run(&mut cluster, report)?;
        }
    }
    if report.failed() > 0 {
        eprintln!("  logs: {}", cluster.save_logs()?.display());
    }
    if options.keep {
        println!("{}", cluster.look_around()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    fn turns(words: &[&str]) -> Vec<(String, usize, bool)> {
        let options = Options::parse_from([&["e2e"], words].concat());
        let turn = |turn: Turn| (turn.plan.name(), turn.suites.len(), turn.is_disturbed);
        options.turns().into_iter().map(turn).collect()
    }

    #[test]
    fn options_narrow_what_is_done() {
        let one = |name: &str, sets, is_disturbed| {
            let name = format!("{name}, containerd 1, kube-proxy nftables");
            (name, sets, is_disturbed)
        };
        let direct = |sets, is_disturbed| one("podwire direct", sets, is_disturbed);
        assert_eq!(turns(&["--quick"]), [direct(0, false)]);
        assert_eq!(turns(&["--keep"]), [direct(0, false)]);
        assert_eq!(turns(&["--encapsulation", "direct"]), [direct(0, true)]);
        let both = [direct(1, false), one("podwire vxlan", 1, false)];
        assert_eq!(turns(&["--suite", "pods"]), both);
        assert_eq!(turns(&["--network", "bridge"]), [one("bridge", 0, false)]);
    }

    #[test]
    fn without_options_everything_is_tried() {
        let names: Vec<String> = turns(&[]).into_iter().map(|(name, ..)| name).collect();
        let beside = ["containerd 1, kube-proxy nftables", "containerd 2", "kube-proxy iptables"];
        for (mode, rest) in
            ["direct", "vxlan"].iter().flat_map(|mode| beside.map(|rest| (mode, rest)))
        {
            // Without a word of the user the nodes here choose `direct`.
            let is_so = |name: &String| {
                (name.contains(mode) || (*mode == "direct" && name.contains("auto")))
                    && name.contains(rest)
            };
            assert!(names.iter().any(is_so), "{mode} with {rest} in {names:?}");
        }
        for mode in ["direct", "vxlan"] {
            let is_disturbed = |(name, sets, disturbed): &(String, _, _)| {
                name.contains(mode) && *sets > 0 && *disturbed
            };
            assert!(turns(&[]).iter().any(is_disturbed), "{mode}");
        }
    }
}
