//! What people do with pods: exec, logs, port-forward.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use harness::command::{self, Process};

use super::NAMESPACE;
use super::objects::{LOGGED, PORT};
use crate::report::Report;
use crate::view::View;

pub(super) fn run(view: &View<'_>, report: &mut Report) {
    let kubectl = view.kubectl;
    let last = format!("pod{}a", view.members.len());
    report.check("kubectl exec", || {
        for pod in ["pod1a", &last] {
            let name = kubectl.exec(NAMESPACE, pod, &["hostname"])?;
            ensure!(name.trim() == pod, "{pod} says that it is {name}");
        }
        Ok(format!("in pod1a and {last}"))
    });
    report.check("kubectl logs", || {
        let logs = kubectl.run(&format!("logs --namespace {NAMESPACE} probe-exec"))?;
        ensure!(logs.lines().next() == Some(LOGGED), "{logs}");
        Ok(LOGGED.to_owned())
    });
    report.check("kubectl port-forward", || forward(view, &last));
}

fn forward(view: &View<'_>, pod: &str) -> Result<String> {
    let mut command = view.kubectl.service();
    command.args(["port-forward", "--namespace", NAMESPACE, pod, &format!(":{PORT}")]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("kubectl")?;
    let stdout = child.stdout.take().context("its output")?;
    let _ended_with_us = Process::new(child);
    // Forwarding from 127.0.0.1:40123 -> 8080
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.next().context("it ended")??;
    let port = line.split(&[':', ' '][..]).nth(3).context(line.clone())?;
    let mut curl = view.kubectl.beside("curl");
    let url = format!("http://127.0.0.1:{port}/hostname");
    let answer = command::run(curl.args(["--silent", "--max-time", "20", &url]))?;
    ensure!(answer == pod, "{answer}");
    // It would end if nobody could read what it prints.
    drop(lines);
    Ok(format!("{pod} by port {port}"))
}
