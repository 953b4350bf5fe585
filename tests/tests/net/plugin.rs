//! The plugin: repeated, and asked for what it cannot do.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tests::cluster::{Cluster, Mode};
use tests::node::CniCall;

use super::traces;

#[test]
fn del_succeeds_again_and_without_the_agent() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.pod()?;
        pod.delete()?;
        pod.delete()?;
        traces::ensure_none(node, &pod)?;

        let other = node.pod()?;
        node.kill_agent();
        other.delete()?;
        let left = traces::kernel_traces(node)?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    });
}

#[test]
fn bad_requests_get_errors_with_their_codes() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let nowhere = CniCall {
            command: "ADD",
            container_id: "x",
            netns: Path::new("/run/netns/there-is-none"),
        };
        let error = node.cni(&nowhere)?.err().context("ADD to nowhere worked")?;
        ensure!(error.to_string().contains("there-is-none"), "{error}");
        let unknown = CniCall { command: "FROB", ..nowhere };
        let error = node.cni(&unknown)?.err().context("FROB worked")?;
        ensure!(error["code"] == 4, "{error}");
        let unnamed = CniCall { container_id: "", ..nowhere };
        let error = node.cni(&unnamed)?.err().context("no container worked")?;
        ensure!(error["code"] == 4, "{error}");
        let old = serde_json::json!({ "cniVersion": "9.0.0", "name": "a", "type": "podwire" });
        let error = node.cni_with(&nowhere, &old)?.err().context("version 9 worked")?;
        ensure!(error["code"] == 1, "{error}");
        Ok(())
    });
}
