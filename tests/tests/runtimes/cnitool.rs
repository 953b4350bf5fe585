//! `cnitool` of the CNI project, by which people try a network out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::Node;
use tests::room::{Room, Service};

use super::chain::addresses;
use super::story::{self, PORT, PUBLISHED, Runtime};

#[test]
fn namespaces_on_two_nodes() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let [one, two] = [1, 2].map(|number| Cnitool::new(cluster.node(number)));
        story::tell(cluster, [one?, two?])
    });
}

struct Cnitool {
    servers: RefCell<BTreeMap<String, Service>>,
    room: Room,
}

impl Cnitool {
    fn new(node: &Arc<Node>) -> Result<Self> {
        let room = Room::new(node)?;
        room.add_network(&super::portmap_list(node, "1.0.0"))?;
        Ok(Self { servers: RefCell::default(), room })
    }

    fn call(&self, verb: &str, name: &str, publish: bool) -> Result<String> {
        let ports = json!([{"hostPort": PUBLISHED, "containerPort": PORT, "protocol": "tcp"}]);
        let ports = json!({"portMappings": if publish { ports } else { json!([]) }});
        let mut cnitool = self.room.command("env");
        cnitool
            .arg(format!("CNI_PATH={}", self.room.node.plugins()?.display()))
            .arg(format!("NETCONFPATH={}", self.room.networks().display()))
            .arg(format!("CAP_ARGS={ports}"))
            .arg(binaries::go("cnitool")?)
            .args([verb, "podwire", &path(name)]);
        command::run(&mut cnitool)
    }
}

fn path(name: &str) -> String {
    format!("/run/netns/{name}")
}

impl Runtime for Cnitool {
    fn room(&self) -> &Room {
        &self.room
    }

    fn start(&self, name: &str, publish: bool) -> Result<Vec<IpAddr>> {
        self.room.run(&format!("ip netns add {name}"))?;
        let result = serde_json::from_str(&self.call("add", name, publish)?)?;
        let directory = self.room.node.directory.join(name);
        fs::create_dir(&directory)?;
        fs::write(directory.join("index.html"), format!("{name}\n"))?;
        let (netns, port) = (format!("--net={}", path(name)), PORT.to_string());
        let home = directory.to_string_lossy();
        let words = [&netns, "busybox", "httpd", "-f", "-p", &port, "-h", &home];
        let log = self.room.node.directory.join("httpd.log");
        let server = self.room.spawn("nsenter", &words, &log)?;
        self.servers.borrow_mut().insert(name.to_owned(), server);
        addresses(&result)
    }

    fn exec(&self, name: &str, words: &[&str]) -> Result<String> {
        let mut command = self.room.command("nsenter");
        command.arg(format!("--net={}", path(name))).arg("busybox").args(words);
        command::run(&mut command)
    }

    fn restart(&mut self, name: &str) -> Result<Vec<IpAddr>> {
        self.call("del", name, name == "one")?;
        let result = serde_json::from_str(&self.call("add", name, name == "one")?)?;
        addresses(&result)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let server = self.servers.borrow_mut().remove(name);
        server.context("no server")?.end(Signal::SIGTERM)?;
        self.call("del", name, name == "one")?;
        self.room.run(&format!("ip netns delete {name}")).map(drop)
    }
}
