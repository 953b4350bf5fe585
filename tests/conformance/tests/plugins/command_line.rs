//! What people and CI systems get from the kit.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ground::{Ground, REFERENCE, run};

fn bridge(ground: &Ground) -> Result<Command> {
    ground.kit(&Path::new(REFERENCE).join("bridge"), "bridge")
}

/// Namespaces that a process has made.
fn namespaces(pid: u32) -> BTreeSet<String> {
    let prefix = format!("cnic-{pid}-");
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

#[test]
fn known_failures_that_pass_are_told() {
    let ground = Ground::new().unwrap();
    let known = ground.path("known.toml");
    let text = "[[known]]\nchecks = [\"del/twice\"]\nreason = \"Because.\"\n";
    std::fs::write(&known, text).unwrap();
    let mut kit = bridge(&ground).unwrap();
    let ran = run(kit.args(["--only", "del/twice", "--known"]).arg(known)).unwrap();
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.report["counts"]["unexpected"], 1);
}

#[test]
fn junit_has_a_case_for_each_check() {
    let ground = Ground::new().unwrap();
    let file = ground.path("junit.xml");
    let mut kit = bridge(&ground).unwrap();
    kit.args(["--only", "del/twice", "--only", "error/cni-version", "--only", "ipam/addresses"]);
    kit.args(["--cni-version", "0.3.0", "--junit"]).arg(&file);
    assert_eq!(run(&mut kit).unwrap().code, Some(1));
    let xml = std::fs::read_to_string(file).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    assert_eq!((report.tests, report.failures), (3, 1), "{xml}");
    assert!(xml.contains("name=\"error/cni-version@0.3.0\""), "{xml}");
    assert_eq!(xml.matches("<skipped").count(), 1, "{xml}");
}

#[test]
fn the_table_ends_with_the_sum() {
    let ground = Ground::new().unwrap();
    let mut kit = bridge(&ground).unwrap();
    let output = kit.args(["--only", "del/twice"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().last(), Some("1 passed, 0 failed, 0 known to fail, 0 do not apply"));
}

#[test]
fn a_plugin_that_cannot_run_here_is_no_failed_check() {
    let ground = Ground::new().unwrap();
    let plugin = Path::new(REFERENCE).join("macvlan");
    let config = ground.config("macvlan").unwrap();
    let mut kit = Command::new(env!("CARGO_BIN_EXE_cni-conformance"));
    kit.arg("--plugin").arg(plugin).arg("--config").arg(config);
    let ran = run(&mut kit).unwrap();
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot run here"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Link not found"), "the plugin's own words: {}", ran.stderr);
}

#[test]
fn nothing_is_left_of_a_run() {
    let ground = Ground::new().unwrap();
    let mut child = start(bridge(&ground).unwrap().args(["--only", "add/twice"])).unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(namespaces(pid), BTreeSet::new());
}

#[test]
fn nothing_is_left_after_sigint() {
    let ground = Ground::new().unwrap();
    let mut child = start(&mut bridge(&ground).unwrap()).unwrap();
    let pid = child.id();
    while attached(&ground).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        std::thread::yield_now();
    }
    let id = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(id, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(namespaces(pid), BTreeSet::new());
    assert_eq!(attached(&ground), [""; 0]);
}

/// Addresses that are given.
fn attached(ground: &Ground) -> Vec<String> {
    let entries = std::fs::read_dir(ground.path("addresses/kit")).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("10."))
        .collect()
}

fn start(kit: &mut Command) -> Result<Child> {
    kit.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start the kit")
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let ground = Ground::new().unwrap();
    let mut child = start(&mut bridge(&ground).unwrap()).unwrap();
    let pid = child.id();
    while namespaces(pid).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!namespaces(pid).is_empty());
    let ground = Ground::new().unwrap();
    run(bridge(&ground).unwrap().args(["--only", "version/succeeds"])).unwrap();
    assert_eq!(namespaces(pid), BTreeSet::new());
}

#[test]
fn mistakes_of_the_command_line_are_told() -> Result<()> {
    let ground = Ground::new()?;
    for (arguments, wanted) in
        [(["--only", "del/never-was"], "--list"), (["--known", "/nowhere"], "/nowhere")]
    {
        let ran = run(bridge(&ground)?.args(arguments))?;
        ensure!(ran.code == Some(2), "{arguments:?}: {:?}", ran.code);
        ensure!(ran.stderr.contains(wanted), "{}", ran.stderr);
    }
    Ok(())
}
