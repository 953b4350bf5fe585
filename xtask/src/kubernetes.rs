//! Builds Kubernetes, its test suite, CoreDNS, containerd 2, and what is as new as that: etcd, and the CNI project's
//! `portmap`. Each when its version or its flags changed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{command, paths, progress::Step};

/// A program, and what it is built of.
struct Program {
    /// Its file below `target/kubernetes/bin`.
    file: &'static str,
    /// Below `tests/kubernetes/go`: the module that names its version.
    module: &'static str,
    package: &'static str,
}

const fn program(file: &'static str, module: &'static str, package: &'static str) -> Program {
    Program { file, module, package }
}

/// All programs. The first pays for what it shares with those behind it.
const PROGRAMS: [Program; 15] = [
    program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    program(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    program("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    program("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    program("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    program("agnhost", "kubernetes", "k8s.io/kubernetes/test/images/agnhost"),
    program("ginkgo", "kubernetes", "github.com/onsi/ginkgo/v2/ginkgo"),
    program("e2e.test", "kubernetes", "k8s.io/kubernetes/test/e2e"),
    program("coredns", "coredns", "github.com/coredns/coredns"),
    program(
        "containerd/containerd",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
    ),
    program(
        "containerd/containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    program("containerd/ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    program(
        "cni/portmap",
        "plugins",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ),
];

const KUBERNETES: &str = "k8s.io/kubernetes";
/// What has the version of Kubernetes in it: servers and tests of unknown ones refuse each other.
const STAMPED: [&str; 2] = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
/// Tags: no logging of requests that keeps the linker from leaving out what is not called.
const FLAGS: [&str; 4] = ["-mod=readonly", "-trimpath", "-tags", "notest,grpcnotrace"];
/// Files of Kubernetes that images need.
const SHARED: [&str; 3] = ["porter/localhost.crt", "porter/localhost.key", "VERSION"];
/// First release of Go that fetches the one which a module asks for.
const GO_MIN: u32 = 21;

/// Builds what is missing or of another version.
pub(crate) fn build() -> Result<()> {
    let version = version()?;
    let flags = linker_flags(&version);
    let mut is_whole = true;
    for program in &PROGRAMS {
        let stamp = stamp(program, &flags)?;
        let out = directory().join("bin").join(program.file);
        let stamp_file = directory().join("stamps").join(program.file);
        if out.exists() && fs::read_to_string(&stamp_file).is_ok_and(|text| text == stamp) {
            continue;
        }
        is_whole = false;
        let mut step = Step::start(format!("building {} {}", program.file, program.module));
        let mut go = go(program.module)?;
        let verb: &[&str] =
            if out.ends_with("e2e.test") { &["test", "-c", "-vet=off"] } else { &["build"] };
        go.args(verb).args(["-v"]).args(FLAGS).arg("-ldflags").arg(&flags);
        go.arg("-o").arg(&out).arg(program.package);
        command::stream(&mut go, |line| {
            step.note(line);
            true
        })
        .with_context(|| format!("build {}", program.file))?;
        fs::create_dir_all(stamp_file.parent().context("stamps")?)?;
        fs::write(stamp_file, stamp)?;
        step.done();
    }
    share(&version)?;
    if !is_whole {
        forget_cache();
    }
    Ok(())
}

/// Returns the directory of all that is built for Kubernetes.
pub(crate) fn directory() -> PathBuf {
    paths::root().join("target/kubernetes")
}

fn modules() -> PathBuf {
    paths::root().join("tests/kubernetes/go")
}

/// Reads the version of Kubernetes from its module: `require k8s.io/kubernetes v1.37.1`.
fn version() -> Result<String> {
    let text = fs::read_to_string(modules().join("kubernetes/go.mod"))?;
    let line = text.lines().map(|line| line.trim().trim_start_matches("require "));
    let version = line.filter_map(|line| line.strip_prefix(KUBERNETES)).find_map(|rest| {
        rest.strip_prefix(' ')?.split_whitespace().next().filter(|word| word.starts_with("v1."))
    });
    version.map(str::to_owned).context("tests/kubernetes/go/kubernetes/go.mod names no version")
}

fn linker_flags(version: &str) -> String {
    let minor = version.split('.').nth(1).unwrap_or_default();
    let stamps = STAMPED.map(|package| {
        format!(
            "-X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
        )
    });
    format!("-s -w {}", stamps.join(" "))
}

/// What decides how a program comes out: its module with all versions, and flags.
fn stamp(program: &Program, flags: &str) -> Result<String> {
    let module = fs::read(modules().join(program.module).join("go.mod"))?;
    let mut hash = Sha256::new();
    hash.update(module);
    for text in FLAGS.iter().chain([&program.package, &flags]) {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns Go, at low priority: a machine where somebody works stays usable.
fn go(module: &str) -> Result<Command> {
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(find_go()?).current_dir(modules().join(module));
    command
        .env("GOPATH", directory().join("go/path"))
        .env("GOCACHE", directory().join("go/cache"))
        .env("GOFLAGS", "-modcacherw -buildvcs=false")
        .env("CGO_ENABLED", "0")
        .env_remove("GOROOT");
    Ok(command)
}

/// The first Go that is new enough: on the path, where go.dev's own archive goes, or the distribution's.
fn find_go() -> Result<PathBuf> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&on_path).chain([PathBuf::from("/usr/local/go/bin")]);
    for go in directories.map(|directory| directory.join("go")).filter(|go| go.exists()) {
        let version = command::output(Command::new(&go).arg("version"))?;
        if minor(&version).is_some_and(|minor| minor >= GO_MIN) {
            return Ok(go);
        }
    }
    bail!(
        "Kubernetes is built with Go 1.{GO_MIN} or newer, and none is on the PATH: see https://go.dev/dl"
    )
}

/// Reads `go version go1.26.8 linux/amd64`.
fn minor(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Makes what images need beside programs: some files, and the program that holds a pod.
fn share(version: &str) -> Result<()> {
    let stamp = directory().join("share").join(version);
    if stamp.exists() {
        return Ok(());
    }
    command::output(go("kubernetes")?.args(["mod", "download", KUBERNETES]))?;
    let list = ["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", KUBERNETES];
    let source = PathBuf::from(command::output(go("kubernetes")?.args(list))?);
    fs::create_dir_all(directory().join("share"))?;
    for file in SHARED {
        let from = source.join("test/images/agnhost").join(file);
        let name = Path::new(file).file_name().context("a name")?;
        let text = fs::read(&from).with_context(|| from.display().to_string())?;
        fs::write(directory().join("share").join(name), text)?;
    }
    let mut compiler = Command::new("cc");
    compiler.args(["-Os", "-static", "-s", &format!("-DVERSION={version}"), "-o"]);
    compiler.arg(directory().join("bin/pause")).arg(source.join("build/pause/linux/pause.c"));
    command::output(&mut compiler).context("build pause")?;
    Ok(fs::write(stamp, "")?)
}

/// Removes 12 GiB that the next version needs anew anyway.
fn forget_cache() {
    let step = Step::start("removing Go's caches");
    let _ = fs::remove_dir_all(directory().join("go"));
    step.done();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(minor("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(minor("go version go1.19.8 linux/amd64"), Some(19));
        assert_eq!(minor("gcc"), None);
    }

    #[test]
    fn every_program_has_a_module_with_a_version() {
        for program in &PROGRAMS {
            assert_eq!(stamp(program, "").unwrap().len(), 64, "{}", program.file);
        }
        assert!(linker_flags(&version().unwrap()).contains("version.gitMajor=1"));
    }
}
