//! The agent itself takes what the chart makes of values.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{binaries, command};

use super::effects;
use super::objects::{Rendered, agent, chart, strings};

/// What an agent says whose options are right, outside of a cluster.
const NO_POD: &str = "this is no pod with a service account";
/// Options that no value sets, and why.
const BOUND: [(&str, &str); 7] = [
    ("--nodes-file", "the nodes come from the API"),
    ("--kubeconfig", "so does the way there"),
    ("--config", "its content would be the values again"),
    ("--node-name", "a variable has it"),
    ("--socket", "the plugin looks there"),
    ("--bpffs", "it is mounted there"),
    ("--state-dir", "so is this"),
];
/// Values that are left out where they are what the agent takes by itself.
const LEFT_OUT: [(&str, &str); 6] = [
    ("encapsulation", "--encapsulation"),
    ("vxlan.port", "--vxlan-port"),
    ("vxlan.vni", "--vxlan-vni"),
    ("bigTcp", "--big-tcp"),
    ("logLevel", "--log-level"),
    ("expedite", "--expedite"),
];

/// What the agent says when it is started with the arguments and variables of the DaemonSet, but outside of a
/// cluster, where it ends before it does anything.
pub(super) fn start(rendered: &Rendered) -> Result<String> {
    let container = agent(rendered)?;
    let mut agent = command::limited(&binaries::agent()?.to_string_lossy());
    for variable in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        agent.env_remove(variable);
    }
    for variable in container["env"].as_array().context("env")? {
        let value = variable["value"].as_str().unwrap_or("from-a-field");
        agent.env(variable["name"].as_str().context("name")?, value);
    }
    let output = command::output(agent.args(strings(&container["args"])))?;
    ensure!(!output.status.success(), "the agent runs");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether it would run in a cluster.
pub(super) fn is_accepted(said: &str) -> bool {
    said.contains(NO_POD)
}

#[test]
fn the_agent_takes_all_values() -> Result<()> {
    for values in [json!({}), effects::all()] {
        let said = start(&chart(&values)?)?;
        assert!(is_accepted(&said), "{values}: {said}");
    }
    Ok(())
}

#[test]
fn the_agent_takes_the_least_and_the_most() -> Result<()> {
    for values in [
        json!({"vxlan": {"port": 1, "vni": 1}, "mtu": 576, "metrics": {"port": 1}}),
        json!({"vxlan": {"port": 65_535, "vni": 16_777_215}, "mtu": 65_535}),
        json!({"metrics": {"address": "127.0.0.1", "port": 65_535}, "uplinks": ["fifteen-letters"]}),
        json!({"clusterCIDRs": ["32.0.0.0/3", "192.168.255.252/30", "2000::/3"]}),
        json!({"clusterCIDRs": ["fd00::4/126", "2001:db8:1:2:3:4:5:0/126"]}),
        json!({"logLevel": "off"}),
        json!({"encapsulation": "direct", "bigTcp": "on"}),
    ] {
        let said = start(&chart(&values)?)?;
        assert!(is_accepted(&said), "{values}: {said}");
    }
    Ok(())
}

/// So there is no need to hand over arguments as they are.
#[test]
fn every_option_of_the_agent_has_a_value() -> Result<()> {
    let help = help()?;
    let rendered = chart(&effects::all())?;
    let given = strings(&agent(&rendered)?["args"]);
    let options = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let mut count = 0;
    for option in options.map(|line| line.split([' ', '[']).next().unwrap_or_default()) {
        let option = format!("--{option}");
        let is_given = given.iter().any(|argument| argument.split('=').next() == Some(&option));
        let is_bound = BOUND.iter().any(|(name, _)| *name == option);
        assert!(is_given != is_bound, "{option}: given {is_given}, bound {is_bound}");
        count += 1;
    }
    ensure!(count > BOUND.len(), "only {count} options:\n{help}");
    Ok(())
}

#[test]
fn what_is_left_out_is_what_the_agent_takes_by_itself() -> Result<()> {
    let help = help()?;
    let defaults = super::objects::named(&chart(&json!({}))?.defaults);
    for (name, option) in LEFT_OUT {
        let value = defaults.get(name).context(name)?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let own = own_value(&help, option).with_context(|| option.to_owned())?;
        assert_eq!(value, own, "{name}");
    }
    Ok(())
}

fn help() -> Result<String> {
    let agent = binaries::agent()?;
    command::run(command::limited(&agent.to_string_lossy()).args(["run", "--help"]))
}

/// Reads `[default: 8472]` behind an option.
fn own_value(help: &str, option: &str) -> Option<String> {
    let words: Vec<&str> = help.split_whitespace().collect();
    let is_option = |word: &&str| word.split('[').next() == Some(option);
    let behind = words.iter().skip_while(|word| !is_option(word)).skip(1);
    let own = behind.take_while(|word| !word.starts_with("--"));
    own.skip_while(|word| **word != "[default:").nth(1)?.strip_suffix(']').map(str::to_owned)
}
