//! Delegated plugins that hang, those whose caller is killed, and one that knows GC and STATUS.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Mode};
use tests::command;
use tests::node::{CniCall, Node};
use tests::pod::Pod;

use super::garbage::with_valid;
use super::ipam::{DELEGATE, call, ensure_nothing_is_left, host_local, leases};
use super::{killed, traces};

/// A shell's part of what `host-local` does.
const ANSWER: &str = r#"#!/bin/sh
configuration=$(cat)
answer() {
    printf %s "$configuration" | /usr/lib/cni/host-local
}
"#;

/// Its ADD kills the plugin that called it, and goes on when it may.
const OUTLIVES: &str = r#"
[ "$CNI_COMMAND" != ADD ] || { kill -9 $PPID; read -r _ < "${0%/*}/go"; }
answer
"#;

/// Its ADD takes a lease and does not end.
const HANGS: &str = r#"
answer
[ "$CNI_COMMAND" != ADD ] || read -r _ < "${0%/*}/go"
"#;

/// The same, and its ADD kills the plugin that called it before that.
const OUTLIVES_AND_HANGS: &str = r#"
answer
[ "$CNI_COMMAND" != ADD ] || { kill -9 $PPID; read -r _ < "${0%/*}/go"; }
"#;

/// `host-local` with CNI 1.1.0: its GC does nothing, as that of its own releases from 1.6 on, and its STATUS, which they
/// lack, fails where no address of [`traces::SMALL_POOL`] is left.
const NEWER: &str = r#"#!/bin/sh
leases="${0%/*}/../leases/podwire"
case $CNI_COMMAND in
GC) exit ;;
STATUS)
    [ "$(ls "$leases" 2>/dev/null | grep -c '^10\.')" -ge 5 ] || exit 0
    echo '{"cniVersion": "1.1.0", "code": 50, "msg": "no free address", "details": ""}'
    exit 1
    ;;
esac
asked=$(cat)
known=$(printf %s "$asked" | sed 's/"cniVersion":"1.1.0"/"cniVersion":"1.0.0"/g')
answer=$(printf %s "$known" | /usr/lib/cni/host-local)
status=$?
[ "$asked" = "$known" ] || answer=$(printf %s "$answer" | sed '/"cniVersion"/s/1.0.0/1.1.0/')
printf %s "$answer"
exit $status
"#;

/// Makes the newer `host-local`, and returns its directory, for `CNI_PATH`.
pub(crate) fn newer_host_local(node: &Node) -> Result<String> {
    let directory = node.directory.join("newer");
    fs::create_dir(&directory)?;
    command::write_program(&directory.join("host-local"), NEWER)?;
    Ok(directory.to_string_lossy().into_owned())
}

/// A node's delegated plugin.
struct Delegate<'a> {
    node: &'a Node,
    path: String,
    configuration: Value,
}

impl<'a> Delegate<'a> {
    fn new(node: &'a Node, script: &str) -> Result<Self> {
        let directory = node.directory.join("delegate");
        fs::create_dir(&directory)?;
        command::write_program(&directory.join("delegate"), &format!("{ANSWER}{script}"))?;
        command::run(Command::new("mkfifo").arg(directory.join("go")))?;
        let mut configuration = host_local(node, 1);
        configuration["ipam"]["type"] = "delegate".into();
        Ok(Self { node, path: directory.to_string_lossy().into_owned(), configuration })
    }

    fn call(&self, pod: &Pod, verb: &str) -> Result<Result<Value, Value>> {
        call(pod, verb, &self.configuration, &[("CNI_PATH", &self.path)])
    }

    /// An ADD that is killed; what it has started may go on.
    fn killed_add(&self, pod: &Pod) -> Result<ExitStatus> {
        let netns = pod.netns();
        let add = CniCall { command: "ADD", container_id: &pod.container_id, netns: &netns };
        let mut add = self.node.cni_command(&add);
        add.env("CNI_PATH", &self.path);
        let output = self.node.directory.join("delegate/output");
        command::run_apart(&mut add, &self.configuration.to_string(), &output)
    }

    fn go(&self) -> Result<()> {
        Ok(fs::write(self.node.directory.join("delegate/go"), "")?)
    }
}

/// How many of the locks of attachments somebody holds.
fn locks_held(node: &Node) -> Result<usize> {
    let held = fs::read_to_string("/proc/locks")?;
    let mut count = 0;
    for entry in fs::read_dir(node.directory.join("locks"))? {
        let place = format!(":{} 0 EOF", entry?.metadata()?.ino());
        count += held.lines().filter(|line| line.ends_with(&place)).count();
    }
    Ok(count)
}

/// Else the lease would come when DEL has been and gone.
#[test]
fn del_waits_for_a_delegated_plugin_that_outlives_its_caller() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let delegate = Delegate::new(node, OUTLIVES)?;
        let pod = node.bare_pod()?;
        ensure!(!delegate.killed_add(&pod)?.success(), "it was not killed");
        ensure!(leases(node)?.is_empty(), "too early");
        ensure!(locks_held(node)? == 1, "DEL would not wait");
        std::thread::scope(|scope| {
            let del = scope.spawn(|| delegate.call(&pod, "DEL"));
            delegate.go()?;
            let deleted = del.join().expect("a thread")?;
            deleted.map_err(|error| anyhow!("DEL: {error}"))?;
            ensure!(node.directory.join("leases/podwire/last_reserved_ip.0").exists(), "no ADD");
            ensure_nothing_is_left(node, &pod)
        })
    });
}

#[test]
fn an_add_whose_delegated_plugin_hangs_fails_and_leaves_nothing() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let delegate = Delegate::new(node, HANGS)?;
        let pod = node.bare_pod()?;
        let error = delegate.call(&pod, "ADD")?.err().context("ADD succeeded")?;
        ensure!(error["code"] == DELEGATE, "{error}");
        ensure!(error["details"].as_str().is_some_and(|text| text.contains("ADD took more than")));
        ensure!(node.directory.join("leases/podwire/last_reserved_ip.0").exists(), "no ADD");
        ensure!(locks_held(node)? == 0, "somebody holds the lock");
        ensure_nothing_is_left(node, &pod)
    });
}

/// Else the lock, which others may share, would never be free again.
#[test]
fn a_delegated_plugin_that_outlives_its_caller_and_hangs_is_ended() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let delegate = Delegate::new(node, OUTLIVES_AND_HANGS)?;
        let pod = node.bare_pod()?;
        ensure!(!delegate.killed_add(&pod)?.success(), "it was not killed");
        ensure!(!leases(node)?.is_empty(), "it has taken no lease");
        ensure!(locks_held(node)? == 1, "DEL would not wait");
        delegate.call(&pod, "DEL")?.map_err(|error| anyhow!("DEL: {error}"))?;
        ensure!(locks_held(node)? == 0, "somebody holds the lock");
        ensure_nothing_is_left(node, &pod)
    });
}

/// What a runtime of 1.1.0 asks for: each lease is freed, though the plugin's own GC frees none.
#[test]
fn gc_frees_the_leases_of_all_but_the_valid() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let path = newer_host_local(node)?;
        let mut configuration = host_local(node, 1);
        let steps = [killed::steps()?, killed::ipam_steps()?].concat();
        let mut stale = Vec::new();
        for step in &steps {
            let pod = node.bare_pod()?;
            traces::killed_add_with(&pod, step, &configuration)?;
            stale.push(pod);
        }
        configuration["cniVersion"] = "1.1.0".into();
        let environment = [("CNI_PATH", &*path)];
        let of_node = |verb: &str, configuration: &Value| {
            let call = CniCall { command: verb, container_id: "", netns: Path::new("") };
            node.cni_in(&call, configuration, &environment)
        };
        let well = |verb: &str, configuration: &Value| {
            of_node(verb, configuration)?.map_err(|error| anyhow!("{verb}: {error}"))
        };
        // The plugin has run out of addresses, for what the killed ADDs hold.
        let error = of_node("STATUS", &configuration)?.err().context("STATUS worked")?;
        ensure!(error["code"] == 50, "{error}");
        let kept = node.bare_pod()?;
        let whole = node.bare_pod()?;
        for pod in [&kept, &whole] {
            let added = call(pod, "ADD", &configuration, &environment)?;
            added.map_err(|error| anyhow!("ADD: {error}"))?;
        }
        ensure!(leases(node)?.len() > 2 * 2, "no killed ADD has a lease");
        let list = json!([{ "containerID": kept.container_id, "ifname": "eth0" }]);
        well("GC", &with_valid(&configuration, &list))?;
        well("STATUS", &configuration)?;
        ensure!(leases(node)?.len() == 2, "{:?}", leases(node)?);
        for pod in stale.iter().chain([&whole]) {
            ensure!(traces::interfaces(&pod.namespace)? == ["lo"], "{}", pod.container_id);
        }
        well("GC", &with_valid(&configuration, &json!([])))?;
        ensure_nothing_is_left(node, &kept)
    });
}
