//! Container images, made here: no registry is asked.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use harness::command;
use harness::image;
use serde_json::{Value, json};

use crate::programs;

/// What holds the namespaces of a pod.
pub(crate) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// The cluster's DNS.
pub(crate) const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.14.0";

/// Other images that specifications ask for, and that need no more than programs of ours has.
const STAND_INS: [&str; 2] = [
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1",
    "registry.k8s.io/build-image/distroless-iptables:v0.9.7",
];

/// Programs of the distribution that specifications run. Those of busybox are the rest: its `wget` cannot
/// look up names, and its shell prefers its own programs.
const PROGRAMS: [(&str, &str); 12] = [
    ("bash", "bin/bash"),
    ("dash", "bin/sh"),
    ("curl", "usr/bin/curl"),
    ("dig", "usr/bin/dig"),
    ("getent", "usr/bin/getent"),
    ("nslookup", "usr/bin/nslookup"),
    ("nc.openbsd", "usr/bin/nc"),
    ("ip", "usr/bin/ip"),
    ("ss", "usr/bin/ss"),
    ("conntrack", "usr/bin/conntrack"),
    ("iperf", "usr/local/bin/iperf"),
    ("wget", "usr/bin/wget"),
];

/// The test program of Kubernetes, under the name that the suite asks for.
pub(crate) fn agnhost() -> Result<String> {
    let version = fs::read_to_string(share("VERSION")?)?;
    Ok(format!("registry.k8s.io/e2e-test-images/agnhost:{}", version.trim()))
}

fn share(name: &str) -> Result<PathBuf> {
    Ok(programs::directory()?.join("share").join(name))
}

/// Makes the archives that are missing or older than what is in them, and returns all.
pub(crate) fn make() -> Result<Vec<PathBuf>> {
    let agnhost = agnhost()?;
    let mut names = vec![agnhost.as_str()];
    names.extend(STAND_INS);
    Ok(vec![
        Image { program: "pause", names: &[PAUSE], config: json!({"Entrypoint": ["/pause"]}) }
            .make(|_| Ok(()))?,
        Image {
            program: "coredns",
            names: &[COREDNS],
            config: json!({"Entrypoint": ["/coredns"]}),
        }
        .make(|_| Ok(()))?,
        Image {
            program: "agnhost",
            names: &names,
            config: json!({
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": ["/agnhost"],
                "Cmd": ["pause"],
            }),
        }
        .make(furnish)?,
    ])
}

struct Image<'a> {
    program: &'a str,
    names: &'a [&'a str],
    config: Value,
}

impl Image<'_> {
    fn make(&self, furnish: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
        let directory = programs::directory()?.join("images");
        let program = programs::built(self.program)?;
        let archive = directory.join(format!("{}.tar", self.program));
        let own = std::env::current_exe().context("find this program")?;
        let made = age(&archive);
        if made.is_some() && made > age(&program) && made > age(&own) {
            return Ok(archive);
        }
        // Another run may make it at the same time.
        let work = directory.join(format!("{}-{}", self.program, std::process::id()));
        let root = work.join("root");
        for name in ["tmp", "proc", "sys", "dev", "etc"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(&program, root.join(self.program))?;
        furnish(&root)?;
        let packed = work.join("image.tar");
        image::pack(&root, &work.join("image"), self.names, &self.config, &packed)?;
        fs::rename(&packed, &archive)?;
        fs::remove_dir_all(&work)?;
        Ok(archive)
    }
}

fn age(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Adds to agnhost what its own image has.
fn furnish(root: &Path) -> Result<()> {
    for (program, place) in PROGRAMS {
        let program = programs::installed(program)?;
        copy(&program, &root.join(place))?;
        for library in libraries(&program)? {
            copy(&library, &root.join(library.strip_prefix("/")?))?;
        }
    }
    let busybox = root.join("bin/busybox");
    copy(Path::new("/bin/busybox"), &busybox)?;
    for applet in command::run(Command::new("/bin/busybox").arg("--list"))?.lines() {
        let is_there = ["bin", "usr/bin"].iter().any(|at| root.join(at).join(applet).exists());
        if !is_there {
            symlink("/bin/busybox", root.join("bin").join(applet))?;
        }
    }
    symlink("agnhost", root.join("agnhost-2"))?;
    fs::create_dir_all(root.join("uploads"))?;
    for name in ["localhost.crt", "localhost.key"] {
        fs::copy(share(name)?, root.join(name))?;
    }
    let etc = root.join("etc");
    fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n")?;
    fs::write(
        etc.join("passwd"),
        "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
         user-defined-in-image:x:1000:1000::/:/bin/sh\n",
    )?;
    fs::write(
        etc.join("group"),
        "root:x:0:\nuser-defined-in-image:x:1000:\n\
         group-defined-in-image:x:50000:user-defined-in-image\n",
    )?;
    Ok(())
}

/// Copies a file, not a link to it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a directory")?)?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display())).map(drop)
}

/// The loader and the libraries of a program: `libc.so.6 => /lib/libc.so.6 (0x1234)`.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = command::run(Command::new("ldd").arg(program))?;
    let words = listed.split_whitespace();
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
