//! The agent puts plugin and configuration on its host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_the_agent_installs_makes_pods() {
    Cluster::builder(Mode::Direct).nodes(1).without_agents().test(|cluster| {
        let node = cluster.node(1);
        let [plugins, configurations] = ["bin", "net.d"].map(|name| node.directory.join(name));
        fs::create_dir_all(&plugins)?;
        fs::create_dir_all(&configurations)?;
        let file = configurations.join("05-podwire.conflist");
        let [bin, net] = [&plugins, &configurations].map(|path| path.to_string_lossy());
        node.spawn_agent_with(&["--cni-bin-dir", &bin, "--cni-conf-dir", &net])?;
        node.wait_for_agent()?;
        wait_until("the configuration", PATIENCE, || {
            ensure!(file.exists(), "not there");
            Ok(())
        })?;
        let list = read(&file)?;
        ensure!(
            list["name"] == "podwire" && list["cniVersions"] == json!(["1.0.0", "1.1.0"]),
            "{list}"
        );
        ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o644, "not for all to read");

        // As a runtime does with the two.
        let mut configuration = list["plugins"][0].clone();
        configuration["cniVersion"] = "1.1.0".into();
        configuration["name"] = list["name"].clone();
        let pod = node.bare_pod()?;
        for verb in ["ADD", "DEL"] {
            let mut plugin = node.namespace.command(&plugins.join("podwire").to_string_lossy());
            plugin.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &pod.container_id);
            plugin
                .env("CNI_NETNS", pod.netns())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", &plugins);
            let output = command::feed(&mut plugin, &configuration.to_string())?;
            command::checked(&plugin, &output)?;
        }

        // What others do.
        let rival = configurations.join("00-other.conf");
        fs::write(&rival, "{}")?;
        fs::remove_file(&file)?;
        fs::remove_file(plugins.join("podwire"))?;
        wait_until("what was removed", PATIENCE, || {
            ensure!(file.exists() && plugins.join("podwire").exists(), "not there");
            let problems = node.status()?["problems"].to_string();
            ensure!(problems.contains("takes") && problems.contains("00-other.conf"), "{problems}");
            Ok(())
        })?;
        node.stop_agent()?;
        ensure!(rival.exists() && file.exists() && plugins.join("podwire").exists(), "not kept");
        Ok(())
    });
}

fn read(file: &Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(file)?).context("a JSON document")
}
