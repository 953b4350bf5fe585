//! The command line, and the order of what is done.

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
use crate::{checks, life, measure, proxy, suite};

/// Starts a real Kubernetes cluster on this machine, and looks at pods in it.
///
/// Nodes and control plane are namespaces; everything is removed at the end.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask e2e")]
struct Options {
    /// Whose pod network
    #[arg(long, value_enum, default_value_t = network::Kind::Podwire)]
    network: network::Kind,
    /// How packets reach other nodes
    #[arg(long, value_enum, default_value_t = Encapsulation::Both)]
    encapsulation: Encapsulation,
    /// The version of the container runtime
    #[arg(long, value_enum, default_value_t = Containerd::Distribution)]
    containerd: Containerd,
    /// How kube-proxy forwards
    #[arg(long, value_enum, default_value_t = proxy::Mode::Nftables)]
    proxy: proxy::Mode,
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Also run a set of Kubernetes' own specifications (tests/kubernetes/suite.toml); can be repeated
    #[arg(long, value_name = "SET")]
    suite: Vec<String>,
    /// How many of them at a time
    #[arg(long, default_value_t = 6)]
    processes: u32,
    /// Only `direct`, and none of Kubernetes' own specifications
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
    /// One after the other
    Both,
}

impl Encapsulation {
    fn first(self) -> Mode {
        if self == Self::Vxlan { Mode::Vxlan } else { Mode::Direct }
    }
}

impl Options {
    fn networks(&self) -> Vec<Network> {
        let modes = match self.encapsulation {
            _ if self.network == network::Kind::Bridge => return vec![Network::Bridge],
            Encapsulation::Both if !self.quick && !self.keep => Mode::ALL.to_vec(),
            Encapsulation::Direct | Encapsulation::Vxlan | Encapsulation::Both => {
                vec![self.encapsulation.first()]
            }
        };
        modes.into_iter().map(Network::Podwire).collect()
    }

    /// A cluster that stays up is left as it is, and `bridge` has no agents.
    fn disturbs(&self) -> bool {
        !self.quick && !self.keep && self.network == network::Kind::Podwire && self.suite.is_empty()
    }

    fn plan(&self, network: Network) -> Plan {
        let Self { containerd, proxy, nodes, keep, .. } = *self;
        Plan { network, containerd, proxy, nodes, keep }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.clean {
        clean::report(Which::DeadAndKept).map(|()| 0)
    } else if options.worker {
        work(&options)
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
        let mode = options.encapsulation.first();
        let plan = options.plan(Network::Podwire(mode));
        return measure::run(plan, subjects, options.quick);
    }
    let mut reports = Vec::new();
    for network in options.networks() {
        let plan = options.plan(network);
        eprintln!("\n== {}", plan.name());
        let mut report = Report::default();
        if let Err(error) = in_cluster(options, plan, &mut report) {
            report.check("the cluster", || Err(error));
        }
        reports.push((plan.name(), report));
    }
    let mut failed = 0;
    for (name, report) in &reports {
        println!("\n{name}\n{}", report.table());
        failed += report.failed();
    }
    println!(
        "\n{}",
        if failed == 0 { "all is well".to_owned() } else { format!("{failed} failed") }
    );
    Ok(u8::from(failed > 0))
}

fn in_cluster(options: &Options, plan: Plan, report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::start(plan, report)?;
    let ready = report
        .check("no node is Ready without a pod network", || cluster.assert_not_ready())
        && report.check("nodes are Ready with it", || cluster.install_network())
        && report.check("CoreDNS in a pod, beside kube-proxy", || cluster.start_dns());
    if ready {
        checks::run(&cluster, report)?;
        if options.disturbs() {
            life::run(&mut cluster, report)?;
        }
        for set in &options.suite {
            let what = format!("Kubernetes' own suite: {set}");
            report.check(&what, || suite::run(&cluster, set, options.processes));
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

    #[test]
    fn without_options_both_ways_are_tried() {
        let networks = |words: &[&str]| {
            let options = Options::parse_from([&["e2e"], words].concat());
            options.networks().into_iter().map(Network::name).collect::<Vec<_>>()
        };
        assert_eq!(networks(&[]), ["podwire direct", "podwire vxlan"]);
        assert_eq!(networks(&["--quick"]), ["podwire direct"]);
        assert_eq!(networks(&["--network", "bridge"]), ["bridge"]);
    }
}
