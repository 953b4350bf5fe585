//! What the plugin asks of the kernel: each thing once, and nothing that grows with the node.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::cluster::{Cluster, Mode};
use tests::node::Node;
use tests::{binaries, command};

/// Most system calls of a verb, of which some thirty to fifty start and end the process. A change that needs
/// more has a reason, and a new number here.
const BUDGETS: [(&str, usize); 5] =
    [("ADD", 210), ("CHECK", 185), ("STATUS", 110), ("DEL", 105), ("GC", 95)];

/// Whether all grace periods are expedited, of the whole machine.
pub(crate) const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// A system call as `strace` writes it.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: String,
    arguments: String,
}

/// Reads what `strace -f` has written.
fn read(trace: &str) -> Vec<Call> {
    let call = |line: &str| {
        let (_, text) = line.split_once(' ')?;
        let (name, arguments) = text.trim_start().split_once('(')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| Call { name: name.to_owned(), arguments: arguments.to_owned() })
    };
    trace.lines().filter_map(call).collect()
}

impl Call {
    /// The path that is opened for writing.
    fn written(&self) -> Option<&str> {
        let writes = ["O_WRONLY", "O_RDWR"].iter().any(|flag| self.arguments.contains(flag));
        if !self.name.starts_with("open") || !writes {
            return None;
        }
        self.arguments.split('"').nth(1)
    }

    fn starts_process(&self) -> bool {
        match self.name.as_str() {
            "fork" | "vfork" => true,
            "clone" | "clone3" => !self.arguments.contains("CLONE_THREAD"),
            _ => false,
        }
    }

    /// Loads programs, types or maps.
    fn loads(&self) -> bool {
        let loading = ["BPF_PROG_LOAD", "BPF_BTF_LOAD", "BPF_MAP_CREATE"];
        self.name == "bpf" && loading.iter().any(|what| self.arguments.starts_with(what))
    }

    /// Asks for all interfaces (`RTM_GETLINK`, 18, with `NLM_F_DUMP`).
    fn lists_links(&self) -> bool {
        let has = |texts: [&str; 2]| texts.iter().any(|text| self.arguments.contains(text));
        self.name == "sendto"
            && has(["nlmsg_type=RTM_GETLINK", "nlmsg_type=0x12"])
            && has(["NLM_F_DUMP", "|0x300"])
    }
}

/// Runs the plugin and returns its system calls.
fn traced(node: &Node, verb: &str, netns: &Path, more: &serde_json::Value) -> Result<Vec<Call>> {
    let file = node.directory.join(format!("{verb}.strace"));
    let mut strace = node.namespace.command("strace");
    strace.arg("-f").arg("-o").arg(&file).arg(binaries::plugin()?);
    strace.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", "traced");
    strace.env("CNI_NETNS", netns).env("CNI_IFNAME", "eth0").env("CNI_PATH", "/nonexistent");
    // Where cargo has the loader look for libraries: a directory after the other.
    strace.env_remove("LD_LIBRARY_PATH");
    let mut configuration = node.cni_configuration();
    for (key, value) in more.as_object().context("an object")? {
        configuration[key] = value.clone();
    }
    let output = command::feed(&mut strace, &configuration.to_string())?;
    let answer = command::checked(&strace, &output)?;
    if verb == "ADD" {
        fs::write(node.directory.join("added.json"), answer)?;
    }
    Ok(read(&fs::read_to_string(file)?))
}

/// Those that do not wait for the kernel: a wait is a pause, and the question before the next.
fn without_waiting(calls: &[Call]) -> Vec<&Call> {
    let mut waits = false;
    let is_counted = |call: &&Call| {
        // As glibc and as musl sleep.
        waits = ["clock_nanosleep", "nanosleep"].contains(&call.name.as_str())
            || (waits && ["sendto", "recvfrom"].contains(&call.name.as_str()));
        !waits
    };
    calls.iter().filter(is_counted).collect()
}

fn judge(verb: &str, calls: &[Call], budget: usize) -> Result<()> {
    ensure!(calls.len() > 10, "{verb}: strace has seen {} calls only", calls.len());
    let programs = calls.iter().filter(|call| call.name.starts_with("execve")).count();
    ensure!(programs == 1, "{verb} runs {programs} programs");
    for call in calls {
        ensure!(!call.starts_process(), "{verb} starts a process: {call:?}");
        ensure!(!call.loads(), "{verb} loads something into the kernel: {call:?}");
        ensure!(!call.lists_links(), "{verb} asks for all interfaces: {call:?}");
    }
    let mut written: BTreeMap<&str, u32> = BTreeMap::new();
    for path in calls.iter().filter_map(Call::written) {
        *written.entry(path).or_default() += 1;
    }
    let twice: Vec<_> = written.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "{verb} opens for writing more than once: {twice:?}");
    let counted = without_waiting(calls);
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for call in &counted {
        *by_name.entry(&call.name).or_default() += 1;
    }
    let count = counted.len();
    ensure!(count <= budget, "{verb} makes {count} system calls, more than {budget}: {by_name:?}");
    Ok(())
}

#[test]
fn each_verb_asks_the_kernel_for_little_and_once() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let _neighbour = node.pod()?;
        let pod = node.bare_pod()?;
        let mut failed = Vec::new();
        for (verb, budget) in BUDGETS {
            let more = match verb {
                "CHECK" => {
                    let added = fs::read_to_string(node.directory.join("added.json"))?;
                    let added: serde_json::Value = serde_json::from_str(&added)?;
                    json!({ "prevResult": added })
                }
                "GC" => json!({ "cni.dev/valid-attachments": [] }),
                _ => json!({}),
            };
            let calls = traced(node, verb, &pod.netns(), &more)?;
            failed.extend(judge(verb, &calls, budget).err().map(|error| error.to_string()));
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    });
}

/// The operator says, by the agent, whether the plugin may touch the machine's switch for grace periods. An agent
/// of an earlier release says nothing.
#[test]
fn the_kernel_hurries_only_where_the_agent_lets_it() {
    Cluster::builder(Mode::Direct).nodes(1).test(|cluster| {
        let node = cluster.node(1);
        let pod = node.bare_pod()?;
        let file = node.directory.join("plugin.json");
        let said: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
        ensure!(said["expedite"] == true, "{said}");
        for (says, is_allowed) in [(json!(true), true), (json!(false), false), (json!(null), false)]
        {
            let mut saying = said.clone();
            if says.is_null() {
                saying.as_object_mut().context("an object")?.remove("expedite");
            } else {
                saying["expedite"] = says;
            }
            fs::write(&file, saying.to_string())?;
            for verb in ["ADD", "DEL"] {
                let calls = traced(node, verb, &pod.netns(), &json!({}))?;
                let is_touched = calls.iter().any(|call| call.arguments.contains(SWITCH));
                ensure!(is_touched == is_allowed, "{verb} with {saying}: {calls:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn waiting_is_not_counted() {
    for pause in ["clock_nanosleep(0)", "nanosleep({})"] {
        let wait =
            format!("7 {pause} = 0\n7 sendto(6) = 1\n7 recvfrom(6) = 1\n7 recvfrom(6) = 1\n");
        let trace = format!("7 sendto(6) = 1\n7 recvfrom(6) = 1\n{wait}{wait}7 close(6) = 0\n");
        assert_eq!(without_waiting(&read(&trace)).len(), 3, "{pause}");
    }
}

#[test]
fn what_strace_writes_is_understood() {
    let calls = read(
        "7 execve(\"/p\", [\"/p\"], 0x7ff /* 9 vars */) = 0\n\
         7 openat(AT_FDCWD, \"/a\", O_RDWR|O_CLOEXEC) = 3\n\
         8 clone3({flags=CLONE_VM|CLONE_THREAD} <unfinished ...>\n\
         8 <... clone3 resumed>) = 9\n\
         8 clone(child_stack=NULL, flags=SIGCHLD) = 10\n\
         7 bpf(BPF_PROG_LOAD, {}, 152) = 4\n\
         7 sendto(12, [{nlmsg_type=0x12, nlmsg_flags=NLM_F_REQUEST|0x300}], 28) = 28\n\
         7 sendto(12, [{nlmsg_type=RTM_GETLINK, nlmsg_flags=NLM_F_REQUEST}], 28) = 28\n\
         7 --- SIGCHLD {si_signo=SIGCHLD} ---\n\
         7 +++ exited with 0 +++\n",
    );
    let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["execve", "openat", "clone3", "clone", "bpf", "sendto", "sendto"]);
    let places = |is: fn(&Call) -> bool| -> Vec<usize> {
        calls.iter().enumerate().filter(|(_, call)| is(call)).map(|(at, _)| at).collect()
    };
    assert_eq!(places(|call| call.written() == Some("/a")), [1]);
    assert_eq!(places(Call::starts_process), [3]);
    assert_eq!(places(Call::loads), [4]);
    assert_eq!(places(Call::lists_links), [5]);
}
