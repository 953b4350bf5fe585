//! Who asks and who is asked: pods, and the world. Each runs the same server, which also asks others.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::command::{self, Process};
use harness::fabric::{Fabric, WORLD};
use harness::wait::wait_until;
use serde_json::Value;

use super::NAMESPACE;
use super::objects::{HOST_PORT, PORT};
use crate::programs;
use crate::view::View;

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Where a party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    /// A pod on the host's network: the node itself.
    Node,
    World,
}

/// Somebody who asks and answers.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Name of its node; empty for the world.
    pub(super) node: String,
    /// IPv4 first.
    pub(super) addresses: Vec<String>,
    /// Of its web server; UDP is one above.
    pub(super) port: u16,
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) protocol: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Party {
    pub(super) fn world() -> Self {
        let addresses = WORLD.map(str::to_owned).to_vec();
        let (name, node) = ("world".to_owned(), String::new());
        Self { name, kind: Kind::World, node, addresses, port: PORT }
    }

    /// Questions to it, one per address and protocol.
    pub(super) fn questions(&self) -> Vec<Question> {
        questions(&self.addresses, self.port)
    }

    /// Lets it ask for its own address as others see it; returns the answers.
    pub(super) fn ask(&self, view: &View<'_>, questions: &[Question]) -> Result<Vec<String>> {
        let url = |question: &Question| {
            format!(
                "http://127.0.0.1:{}/dial?request=clientip&tries=1&protocol={}&host={}&port={}",
                self.port, question.protocol, question.host, question.port
            )
        };
        let urls: Vec<String> = questions.iter().map(url).collect();
        let mut arguments = vec!["--max-time", "20", "--write-out", "\\n"];
        arguments.extend(urls.iter().map(String::as_str));
        let answers = self.curl(view, &arguments)?;
        let answers: Vec<String> = answers.lines().map(str::to_owned).collect();
        ensure!(answers.len() == questions.len(), "answers: {answers:?}");
        Ok(answers)
    }

    /// Runs curl where it is.
    pub(super) fn curl(&self, view: &View<'_>, arguments: &[&str]) -> Result<String> {
        let curl = ["curl", "--silent", "--show-error", "--globoff"];
        if self.kind == Kind::World {
            let mut command = view.world.context("there is no world")?.command(curl[0]);
            return command::run(command.args(&curl[1..]).args(arguments));
        }
        let words = [&curl[..], arguments].concat();
        view.kubectl.exec(NAMESPACE, &self.name, &words)
    }
}

/// Questions to the TCP port of each address, and to the UDP port one above.
pub(super) fn questions(addresses: &[String], port: u16) -> Vec<Question> {
    let ways = [("http", port), ("udp", port + 1)];
    let ask = |host: &String| {
        let host = host.clone();
        ways.map(|(protocol, port)| Question { protocol, host: host.clone(), port })
    };
    addresses.iter().flat_map(ask).collect()
}

/// The address that an answer names: `{"responses":["10.244.1.2:4711"]}`.
pub(super) fn address_of(answer: &str) -> Result<String> {
    let parsed: Value = serde_json::from_str(answer).context(answer.to_owned())?;
    let response = parsed["responses"][0].as_str().with_context(|| answer.to_owned())?;
    let (address, _) = response.rsplit_once(':').with_context(|| response.to_owned())?;
    Ok(address.trim_matches(['[', ']']).to_owned())
}

/// All pods that have a server, and an address of each family.
pub(super) fn parties(pods: &Value, families: usize) -> Result<Vec<Party>> {
    let items = pods["items"].as_array().context("items")?;
    let party = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str()?.to_owned();
        let addresses = pod["status"]["podIPs"].as_array()?.iter();
        let addresses = addresses.filter_map(|ip| ip["ip"].as_str().map(str::to_owned)).collect();
        let on_host = pod["spec"]["hostNetwork"] == true;
        let (kind, port) = if on_host { (Kind::Node, HOST_PORT) } else { (Kind::Pod, PORT) };
        let node = pod["spec"]["nodeName"].as_str()?.to_owned();
        (!name.starts_with("probe")).then_some(Party { name, kind, node, addresses, port })
    };
    let parties: Vec<Party> = items.iter().filter_map(party).collect();
    for party in &parties {
        let count = party.addresses.len();
        ensure!(count == families, "{} has {count} addresses, not {families}", party.name);
    }
    Ok(parties)
}

/// Starts the server of the world.
pub(super) fn serve_world(fabric: &Fabric) -> Result<Process> {
    let mut server = fabric.world.service(programs::built("agnhost")?, true);
    server.args(["netexec", &format!("--http-port={PORT}"), &format!("--udp-port={}", PORT + 1)]);
    let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("nsenter")?;
    wait_until("the server of the world", START_TIME_MAX, || {
        fabric.world.run(&format!("curl --silent --fail http://127.0.0.1:{PORT}/healthz")).map(drop)
    })?;
    Ok(Process::new(child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_addresses() {
        let address = |text: &str| address_of(text).ok();
        assert_eq!(address(r#"{"responses":["10.1.2.3:4"]}"#).unwrap(), "10.1.2.3");
        assert_eq!(address(r#"{"responses":["[fd00::1]:4"]}"#).unwrap(), "fd00::1");
        assert_eq!(address(r#"{"errors":["timeout"]}"#), None);
    }
}
