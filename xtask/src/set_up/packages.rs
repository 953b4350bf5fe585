//! Distribution packages: the one table of them, and their installation.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Scope, machine};
use crate::{command, ebpf::toolchain, platform::Platform, progress::Step};

struct Package {
    name: &'static str,
    scope: Scope,
    why: &'static str,
}

const fn package(name: &'static str, scope: Scope, why: &'static str) -> Package {
    Package { name, scope, why }
}

/// Beside its scope, what one command needs that builds.
const PUSHER: &str = "skopeo";

/// All packages, and why.
const PACKAGES: [Package; 26] = [
    package("llvm-22-dev", Scope::Build, "LLVM 22, against which the BPF linker is built"),
    package("bpftool", Scope::Run, "shows maps and programs, independently of our own code"),
    package(
        "containernetworking-plugins",
        Scope::Run,
        "host-local and static give addresses; others to measure ourselves and the kit against",
    ),
    package("ethtool", Scope::Run, "switches the offloads of an uplink off"),
    package("iperf3", Scope::Run, "streams and datagrams of the benchmark"),
    package("iproute2", Scope::Run, "ip: makes namespaces, shows links, routes, neighbours"),
    package("iputils-ping", Scope::Run, "ping: ICMP between pods"),
    package("nftables", Scope::Run, "nft: the masquerading of the agent"),
    package("tcpdump", Scope::Run, "shows what is on a wire"),
    package("traceroute", Scope::Run, "shows the hops between pods"),
    package("busybox-static", Scope::Test, "the one program in the containers of tests"),
    package("containerd", Scope::Test, "a container runtime that calls the plugin"),
    package(
        "golang-go",
        Scope::Test,
        "builds cnitool, Helm's engine, and what calls the CNI project's own library",
    ),
    package("curl", Scope::Test, "asks agents for health and metrics, and web servers in pods"),
    package("iptables", Scope::Test, "the tables of the plugins portmap and firewall"),
    package("podman", Scope::Test, "another container runtime that calls the plugin"),
    package("python3-prometheus-client", Scope::Test, "the reference parser of metrics"),
    package(PUSHER, Scope::Test, "pushes the image of agent and plugin into a registry"),
    package("strace", Scope::Test, "shows what each verb of the plugin asks of the kernel"),
    package("bind9-dnsutils", Scope::Kubernetes, "dig: looks up names of services"),
    package("conntrack", Scope::Kubernetes, "shows connections to Kubernetes' own suite"),
    package("etcd-server", Scope::Kubernetes, "what the API server keeps its objects in"),
    package("iperf", Scope::Kubernetes, "measures throughput in Kubernetes' own suite"),
    package("netcat-openbsd", Scope::Kubernetes, "nc: probes ports in Kubernetes' own suite"),
    package("runc", Scope::Kubernetes, "starts containers"),
    package("wget", Scope::Kubernetes, "asks web servers in pods, by names"),
];

/// Only for the image of machines of another kind than this one.
const CROSS: [Package; 4] = [
    package("gcc-aarch64-linux-gnu", Scope::Build, "links programs for 64-bit Arm"),
    package("libc6-dev-arm64-cross", Scope::Build, "the C library of 64-bit Arm"),
    package("gcc-x86-64-linux-gnu", Scope::Build, "links programs for x86-64"),
    package("libc6-dev-amd64-cross", Scope::Build, "the C library of x86-64"),
];

/// Only where rustup has no tool chain with the sources of `core`.
const RUST: [Package; 2] = [
    package("rustc-web", Scope::Build, "Rust compiler whose sources of `core` are packaged"),
    package("rust-web-src", Scope::Build, "sources of `core`, compiled for the BPF target"),
];

const ATTEMPTS: u32 = 3;
/// Age from which lists of packages name versions that the mirrors may have removed.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Installs the packages that are missing, and says which and why.
pub(super) fn install_missing(scope: Scope) -> Result<()> {
    let mut wanted: Vec<&Package> = PACKAGES.iter().filter(|p| p.scope <= scope).collect();
    if toolchain::find()?.is_none() {
        wanted.extend(&RUST);
    }
    install_all(&missing(wanted))
}

/// Installs what pushes images where it is missing, and returns its name. It may have come here by other means.
pub(crate) fn pusher() -> Result<&'static str> {
    if command::output(Command::new(PUSHER).arg("--version")).is_err() {
        install_all(&missing(PACKAGES.iter().filter(|p| p.name == PUSHER).collect()))?;
    }
    Ok(PUSHER)
}

/// Installs what links programs for a platform where it is missing.
pub(crate) fn cross_compiler(platform: Platform) -> Result<()> {
    let mut compiler = Command::new(platform.cross_compiler());
    // Without the C library for the platform it knows no more than the name.
    compiler.arg("-print-file-name=libc.a");
    let is_there = command::output(&mut compiler).is_ok_and(|libc| Path::new(&libc).is_absolute());
    if !is_there {
        let own = [
            format!("gcc-{}", platform.gnu().replace('_', "-")),
            format!("libc6-dev-{}-cross", platform.architecture()),
        ];
        let wanted = CROSS.iter().filter(|package| own.iter().any(|name| name == package.name));
        install_all(&missing(wanted.collect()))?;
    }
    Ok(())
}

fn install_all(missing: &[&Package]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Missing distribution packages:");
    for package in missing {
        eprintln!("  {:<28} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "no apt-get here (this is made for Debian 12): install them by other means: {}",
        names.join(" ")
    );
    ensure!(
        machine::is_root(),
        "installing needs root: run the command as root, or `apt-get install {}`",
        names.join(" ")
    );
    install(&names)
}

fn missing(mut wanted: Vec<&Package>) -> Vec<&Package> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"]);
    query.args(wanted.iter().map(|package| package.name));
    // It fails when it does not know one of them, and prints the others.
    let installed = query.output().map(|output| output.stdout).unwrap_or_default();
    let installed = String::from_utf8_lossy(&installed);
    wanted.retain(|package| !is_installed(&installed, package.name));
    wanted
}

fn is_installed(query: &str, name: &str) -> bool {
    query.lines().any(|line| line.split_once(' ') == Some((name, "installed")))
}

fn install(names: &[&str]) -> Result<()> {
    let mut step = Step::start(format!("installing {} packages", names.len()));
    if lists_are_stale() {
        update(&mut step)?;
    }
    let mut attempt = 1;
    while let Err(error) = apt(&mut step, &["install"], names) {
        let text = format!("{error:#}");
        if attempt == ATTEMPTS {
            bail!("{}", explain(&error.context("install packages")));
        }
        let reason =
            text.lines().rfind(|line| line.starts_with("E: ")).unwrap_or("no reason given");
        eprintln!("    attempt {attempt} of {ATTEMPTS} failed ({reason}), trying again");
        attempt += 1;
        if text.contains("dpkg --configure -a") {
            let mut dpkg = Command::new("dpkg");
            command::stream(dpkg.args(["--configure", "-a"]), |_| true)
                .context("finish an interrupted installation")?;
        }
        thread::sleep(Duration::from_secs(2));
        update(&mut step)?;
    }
    step.done();
    Ok(())
}

fn update(step: &mut Step) -> Result<()> {
    apt(step, &["update"], &[])
        .map_err(|error| anyhow::anyhow!("{}", explain(&error)))
        .context("update the lists of packages")
}

fn apt(step: &mut Step, verb: &[&str], names: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(verb)
        .args(["--yes", "--no-remove", "--no-install-recommends", "--option", "Acquire::Retries=3"])
        .args(["--option", "Acquire::http::Timeout=30", "--option", "DPkg::Lock::Timeout=300"])
        .args(["--option", "APT::Status-Fd=1", "--option", "Dpkg::Use-Pty=0"])
        .args(["--option", "APT::Update::Error-Mode=any"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command::stream(&mut apt, |line| match status(line) {
        Some(progress) => {
            step.note(&progress);
            false
        }
        None => true,
    })
}

/// Reads a line of apt's status: `dlstatus:1:20.5:Retrieving file 1 of 9`.
fn status(line: &str) -> Option<String> {
    let mut fields = line.splitn(4, ':');
    let kind = fields.next()?;
    let (_, percent, text) = (fields.next()?, fields.next()?, fields.next()?);
    let percent: f32 = percent.parse().ok()?;
    ["dlstatus", "pmstatus"].contains(&kind).then(|| format!("{percent:.0} % {text}"))
}

fn lists_are_stale() -> bool {
    let Ok(lists) = fs::read_dir("/var/lib/apt/lists") else { return true };
    let newest = lists
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    newest.is_none_or(|newest| {
        SystemTime::now().duration_since(newest).is_ok_and(|age| age > LISTS_AGE_MAX)
    })
}

/// Adds what to do to an error of apt.
fn explain(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let advice = if text.contains("Temporary failure resolving")
        || text.contains("Could not connect")
        || text.contains("Connection timed out")
        || text.contains("Network is unreachable")
    {
        "the package mirrors cannot be reached: check the network, the name server and apt's proxy"
    } else if text.contains("Unable to locate package")
        || text.contains("no installation candidate")
    {
        "the distribution does not have the package: this is made for Debian 12 with its security \
         updates (the suite bookworm-security) among apt's sources"
    } else if text.contains("remove is disabled") {
        "a package of another origin is in the way, as Docker's containerd.io is in that of containerd: \
         it would have to go, which is yours to decide"
    } else if text.contains("Could not get lock") {
        "another package manager is at work: wait for it to end"
    } else {
        "see apt's message above"
    };
    format!("{text}\n{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_reason_and_stands_once() {
        let all = || PACKAGES.iter().chain(&CROSS).chain(&RUST);
        let mut names: Vec<_> = all().map(|p| p.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|p| !p.why.is_empty()));
    }

    #[test]
    fn removed_packages_with_files_left_are_not_installed() {
        let query = "traceroute config-files\nbpftool installed\n";
        assert!(is_installed(query, "bpftool"));
        assert!(!is_installed(query, "traceroute"));
        assert!(!is_installed(query, "tcpdump"));
    }

    #[test]
    fn apt_status_lines_become_progress() {
        let line = "pmstatus:llvm-22:45.6:Unpacking llvm-22 (amd64)";
        assert_eq!(status(line).unwrap(), "46 % Unpacking llvm-22 (amd64)");
        assert!(status("Reading package lists...").is_none());
        assert!(status("Get:1 http://mirror.example/debian bookworm").is_none());
    }

    #[test]
    fn an_unreachable_mirror_gets_advice() {
        let error = anyhow::anyhow!("Temporary failure resolving 'mirror.example'");
        assert!(explain(&error).contains("check the network"));
    }
}
