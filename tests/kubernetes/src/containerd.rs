//! The container runtime of a node, and what is as new as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::images::PAUSE;
use crate::node::Node;
use crate::programs;

const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Containerd {
    /// The distribution's, 1.6, with the distribution's etcd and plugins
    #[value(name = "1")]
    Distribution,
    /// Built, 2, with etcd that streams lists, and a portmap with which it asks the plugins for their STATUS
    #[value(name = "2")]
    Two,
}

impl Containerd {
    /// Starts it on a node, and waits until it answers.
    pub(crate) fn start(self, node: &mut Node) -> Result<()> {
        if self == Self::Two {
            node.give_plugin(&programs::built("cni/portmap")?)?;
        }
        let file = node.file("containerd.toml");
        fs::write(&file, self.configuration())?;
        // It looks for its shim on the path, where that of another version may be.
        let program = self.program("containerd")?;
        let beside = program.parent().context("its directory")?;
        let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", beside.display());
        let words = [path.as_ref(), program.as_os_str(), "--config".as_ref(), file.as_os_str()];
        node.spawn("containerd", &programs::installed("env")?, &words)?;
        let ctr = self.program("ctr")?;
        node.wait("containerd", START_TIME_MAX, |node| {
            node.run(&format!("{} version", ctr.display())).map(drop)
        })
    }

    /// Loads images.
    pub(crate) fn import(self, node: &Node, archives: &[PathBuf]) -> Result<()> {
        let ctr = self.program("ctr")?;
        for archive in archives {
            let import = "--namespace k8s.io images import --local";
            let import = if self == Self::Two { import } else { &import[..import.len() - 8] };
            node.run(&format!("{} {import} {}", ctr.display(), archive.display()))?;
        }
        Ok(())
    }

    /// The etcd beside it.
    pub(crate) fn etcd(self) -> Result<PathBuf> {
        match self {
            Self::Distribution => programs::installed("etcd"),
            Self::Two => programs::built("etcd"),
        }
    }

    /// Whether it asks plugins for their STATUS, and its API server streams lists.
    pub(crate) fn is_newest(self) -> bool {
        self == Self::Two
    }

    /// Its client.
    pub(crate) fn ctr(self) -> Result<String> {
        Ok(self.program("ctr")?.display().to_string())
    }

    fn program(self, name: &str) -> Result<PathBuf> {
        match self {
            Self::Distribution => programs::installed(name),
            Self::Two => programs::built(&Path::new("containerd").join(name).to_string_lossy()),
        }
    }

    fn configuration(self) -> String {
        match self {
            Self::Distribution => format!(
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n\
                 sandbox_image = \"{PAUSE}\"\ndisable_apparmor = true\n\
                 restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
                 bin_dir = \"/opt/cni/bin\"\nconf_dir = \"/etc/cni/net.d\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
                 runtime_type = \"io.containerd.runc.v2\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
                 SystemdCgroup = false\n"
            ),
            Self::Two => format!(
                "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
                 sandbox = '{PAUSE}'\n\
                 [plugins.'io.containerd.cri.v1.runtime']\n\
                 disable_apparmor = true\nrestrict_oom_score_adj = true\n\
                 [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
                 bin_dirs = ['/opt/cni/bin']\nconf_dir = '/etc/cni/net.d'\n\
                 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
                 runtime_type = 'io.containerd.runc.v2'\n\
                 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
                 SystemdCgroup = false\n"
            ),
        }
    }
}
