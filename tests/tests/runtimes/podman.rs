//! podman with its CNI backend.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::image;
use tests::node::Node;
use tests::room::Room;

use super::story::{self, PORT, PUBLISHED, Runtime};

#[test]
fn containers_on_two_nodes() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let [one, two] = [1, 2].map(|number| Podman::new(cluster.node(number)));
        story::tell(cluster, [one?, two?])
    });
}

/// What the container with a published port asks for.
const ASKED_ADDRESS: &str = "10.244.1.77";
const ASKED_MAC: &str = "02:00:00:00:00:77";

struct Podman {
    room: Room,
}

impl Podman {
    fn new(node: &Arc<Node>) -> Result<Self> {
        let room = Room::new(node)?;
        room.add_network(&super::portmap_list(node, "1.0.0"))?;
        // Without systemd and its journal; the rest is what a user sets.
        let config = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"runc\"\n\
             [containers]\nlog_driver = \"k8s-file\"\noom_score_adj = 0\n\
             [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{}\"]\n\
             network_config_dir = \"{}\"\n",
            node.plugins()?.display(),
            room.networks().display()
        );
        fs::write(node.directory.join("containers.conf"), config)?;
        let policy = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}";
        fs::write(node.directory.join("policy.json"), policy)?;
        let podman = Self { room };
        let image = image::make(&node.directory)?;
        let policy = node.directory.join("policy.json");
        podman.run(&[
            "load",
            "--signature-policy",
            &policy.to_string_lossy(),
            "--input",
            &image.to_string_lossy(),
        ])?;
        Ok(podman)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut podman = self.room.command("env");
        let config = self.room.node.directory.join("containers.conf");
        podman.arg(format!("CONTAINERS_CONF={}", config.display())).arg("podman");
        command::run(podman.args(arguments))
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let network =
            self.run(&["inspect", "--format", "{{json .NetworkSettings.Networks}}", name])?;
        let network: Value = serde_json::from_str(&network)?;
        let addresses = ["IPAddress", "GlobalIPv6Address"].map(|key| {
            let address = network["podwire"][key].as_str().context(key)?;
            address.parse().with_context(|| format!("{key} in {network}"))
        });
        addresses.into_iter().collect()
    }
}

impl Runtime for Podman {
    fn room(&self) -> &Room {
        &self.room
    }

    fn start(&self, name: &str, publish: bool) -> Result<Vec<IpAddr>> {
        let serve = format!("echo {name} > /www/index.html && exec httpd -f -p {PORT} -h /www");
        let cgroup = format!("/{}", self.room.cgroup());
        let published = format!("{PUBLISHED}:{PORT}");
        let mut arguments = vec!["run", "--detach", "--pull=never", "--network", "podwire"];
        arguments.extend(["--name", name, "--cgroup-parent", &cgroup]);
        if publish {
            arguments.extend(["--publish", &published]);
            arguments.extend(["--ip", ASKED_ADDRESS, "--mac-address", ASKED_MAC]);
        }
        arguments.extend(["--entrypoint", "/bin/sh", image::NAME, "-c", &serve]);
        self.run(&arguments)?;
        let addresses = self.addresses(name)?;
        if publish {
            ensure!(addresses[0].to_string() == ASKED_ADDRESS, "{addresses:?}");
            let mac = self.exec(name, &["cat", "/sys/class/net/eth0/address"])?;
            ensure!(mac.trim() == ASKED_MAC, "{mac}");
        }
        Ok(addresses)
    }

    fn exec(&self, name: &str, words: &[&str]) -> Result<String> {
        self.run(&[&["exec", name], words].concat())
    }

    fn restart(&mut self, name: &str) -> Result<Vec<IpAddr>> {
        self.run(&["restart", "--time", "0", name])?;
        self.addresses(name)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.run(&["rm", "--force", "--time", "0", name]).map(drop)
    }
}
