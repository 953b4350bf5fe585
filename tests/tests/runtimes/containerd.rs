//! containerd, spoken to by its CRI as the kubelet does.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::binaries;
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::image;
use tests::node::Node;
use tests::room::{Room, Service};
use tests::wait::wait_until;

use super::story::{self, PORT, PUBLISHED, Runtime};

const START_TIME_MAX: Duration = Duration::from_secs(30);
const SOCKET: &str = "/run/containerd/containerd.sock";

#[test]
fn containers_on_two_nodes() {
    Cluster::builder(Mode::Direct).test(|cluster| {
        let runtimes = [1, 2].map(|number| Containerd::start_on(cluster.node(number)));
        let [one, two] = runtimes;
        story::tell(cluster, [one?, two?])
    });
}

struct Containerd {
    daemon: Option<Service>,
    room: Room,
}

impl Containerd {
    fn start_on(node: &Arc<Node>) -> Result<Self> {
        let room = Room::new(node)?;
        room.add_network(&super::portmap_list(node, "1.0.0"))?;
        let config = format!(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = \"{}\"\ndisable_apparmor = true\n\
             restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"{}\"\nconf_dir = \"{}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/run/containerd-opt\"\n",
            image::NAME,
            node.plugins()?.display(),
            room.networks().display()
        );
        fs::write(node.directory.join("containerd.toml"), config)?;
        let mut runtime = Self { daemon: None, room };
        runtime.spawn()?;
        let image = image::make(&node.directory)?;
        let import = format!("ctr --namespace k8s.io images import {}", image.display());
        runtime.room.run(&import)?;
        Ok(runtime)
    }

    fn spawn(&mut self) -> Result<()> {
        let directory = &self.room.node.directory;
        let config = directory.join("containerd.toml");
        let log = directory.join("containerd.log");
        let arguments = ["--config", &config.to_string_lossy()];
        self.daemon = Some(self.room.spawn("containerd", &arguments, &log)?);
        wait_until("containerd's CRI", START_TIME_MAX, || {
            let status = self.call("Status", &json!({}))?;
            let conditions = status["status"]["conditions"].as_array().context("conditions")?;
            ensure!(conditions.iter().all(|one| one["status"] == true), "{status}");
            Ok(())
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    fn call(&self, method: &str, request: &Value) -> Result<Value> {
        let mut cri = self.room.command(binaries::go("cri")?);
        cri.args([SOCKET, method]);
        let output = command::feed(&mut cri, &request.to_string())?;
        Ok(serde_json::from_str(&command::checked(&cri, &output)?)?)
    }

    fn sandbox(&self, name: &str, publish: bool) -> Value {
        let ports = json!([{"protocol": 0, "container_port": PORT, "host_port": PUBLISHED}]);
        json!({
            "metadata": {"name": name, "uid": name, "namespace": "default", "attempt": 0},
            "hostname": name,
            "log_directory": "/run",
            "port_mappings": if publish { ports } else { json!([]) },
            "linux": {"cgroup_parent": format!("/{}", self.room.cgroup())},
        })
    }

    fn sandbox_id(&self, name: &str) -> Result<String> {
        let all = self.call("ListPodSandbox", &json!({}))?;
        let items = all["items"].as_array().context("no sandboxes")?;
        let found = items.iter().find(|item| item["metadata"]["name"] == name);
        Ok(found.and_then(|item| item["id"].as_str()).context("sandbox")?.to_owned())
    }

    fn addresses(&self, id: &str) -> Result<Vec<IpAddr>> {
        let status = self.call("PodSandboxStatus", &json!({"pod_sandbox_id": id}))?;
        let network = &status["status"]["network"];
        let more = network["additional_ips"].as_array().into_iter().flatten();
        let all = [network].into_iter().chain(more).filter_map(|ip| ip["ip"].as_str());
        let mut addresses = all.map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        addresses.sort();
        Ok(addresses)
    }
}

impl Runtime for Containerd {
    fn room(&self) -> &Room {
        &self.room
    }

    fn start(&self, name: &str, publish: bool) -> Result<Vec<IpAddr>> {
        let sandbox = self.sandbox(name, publish);
        let id = self.call("RunPodSandbox", &json!({"config": sandbox}))?["pod_sandbox_id"].take();
        let serve = format!("echo {name} > /www/index.html && exec httpd -f -p {PORT} -h /www");
        let request = json!({
            "pod_sandbox_id": id,
            "sandbox_config": sandbox,
            "config": {
                "metadata": {"name": name, "attempt": 0},
                "image": {"image": image::NAME},
                "command": ["sh", "-c", serve],
                "log_path": format!("{name}.log"),
                "linux": {},
            },
        });
        let container = self.call("CreateContainer", &request)?["container_id"].take();
        self.call("StartContainer", &json!({"container_id": container}))?;
        self.addresses(id.as_str().context("id")?)
    }

    fn exec(&self, name: &str, words: &[&str]) -> Result<String> {
        let all = self.call("ListContainers", &json!({}))?;
        let items = all["containers"].as_array().context("no containers")?;
        let found = items.iter().find(|item| item["metadata"]["name"] == name);
        let id = found.context("container")?["id"].clone();
        let request = json!({"container_id": id, "cmd": words, "timeout": 30});
        let answer = self.call("ExecSync", &request)?;
        Ok(answer.as_str().context("what it printed")?.to_owned())
    }

    fn restart(&mut self, name: &str) -> Result<Vec<IpAddr>> {
        self.daemon.take().context("containerd")?.end(Signal::SIGTERM)?;
        self.spawn()?;
        self.addresses(&self.sandbox_id(name)?)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let id = self.sandbox_id(name)?;
        self.call("StopPodSandbox", &json!({"pod_sandbox_id": id}))?;
        self.call("RemovePodSandbox", &json!({"pod_sandbox_id": id})).map(drop)
    }
}
