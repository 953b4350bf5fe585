//! Work commands of the project: `cargo xtask --help` lists them.

mod build;
mod command;
mod demo;
mod e2e;
mod ebpf;
mod go;
mod image;
mod kubernetes;
mod paths;
mod platform;
mod progress;
mod set_up;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Work commands of Podwire.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what is missing: distribution packages, the BPF linker, bpffs
    SetUp,
    /// Builds the BPF object and reports its programs and their sizes
    BuildEbpf(ebpf::Options),
    /// Builds the Go programs that test plugin, chart and image in other people's hands
    BuildGo,
    /// Builds everything: the BPF object, the agent, the CNI plugin, the tests
    Build(build::Options),
    /// Shows the pod network at work between three nodes made of network namespaces
    Demo(demo::Options),
    /// Measures how fast packets go; `bench programs`, `bench cni`, `bench agent` measure parts
    Bench(demo::Options),
    /// Starts a real Kubernetes cluster on this machine, and looks at pods in it
    E2e(e2e::Options),
    /// Packs agent and plugin into a container image, without a daemon, and pushes it
    Image(image::Options),
    /// Runs the tests; the last line is `N passed, N failed, N skipped`
    Test(test::Options),
    /// Checks the rules of the house that a machine can check
    Tidy(tidy::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::SetUp => set_up::run(set_up::Scope::Test),
        Command::BuildEbpf(options) => {
            set_up::run(set_up::Scope::Build).and_then(|()| ebpf::run(&options))
        }
        Command::BuildGo => set_up::run(set_up::Scope::Test)
            .and_then(|()| go::build_callers())
            .and_then(|()| go::build_renderer())
            .and_then(|()| go::build_registry()),
        Command::Build(options) => build::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => demo::bench(&options),
        Command::E2e(options) => e2e::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Test(options) => return test::run(&options),
        Command::Tidy(options) => tidy::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_and_benchmarks_get_their_arguments_untouched() {
        for arguments in [
            &["--keep", "--encapsulation", "vxlan"][..],
            &["--clean"],
            &["--help"],
            &["--encapsulation=both"],
        ] {
            for command in ["demo", "bench"] {
                let start = ["cargo xtask", command];
                let line = start.iter().chain(arguments);
                let (Command::Demo(options) | Command::Bench(options)) =
                    Cli::try_parse_from(line).unwrap().command
                else {
                    panic!("neither demo nor benchmarks");
                };
                assert_eq!(options.arguments(), arguments);
            }
        }
    }
}
