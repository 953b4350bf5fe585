//! The network configuration.

use serde_json::json;

use super::{Check, must, reference, should};
use crate::bench::Bench;
use crate::stop::Outcome;

const FORMAT: &str = "1 Configuration format";

pub(super) const CHECKS: &[Check] = &[
    must(
        "config/args-ignored",
        "1 Plugin configuration objects; 0.4.0 Network Configuration",
        "data under args that the plugin does not know is ignored",
        args_ignored,
    ),
    should(
        "config/runtime-config-ignored",
        "3 Deriving runtimeConfig",
        "an empty runtimeConfig, which runtimes always insert, is accepted",
        runtime_config_ignored,
    ),
    reference("config/name-missing", FORMAT, "a missing name is refused with code 7", name_missing),
    reference(
        "config/name-invalid",
        FORMAT,
        "a name with other characters than the allowed ones is refused with code 7",
        name_invalid,
    ),
    should("config/not-json", "5 Error", "input that is not JSON is refused with code 6", not_json),
    should("config/empty", "5 Error", "empty input is refused with code 5 or 6", empty),
    should(
        "config/version-not-a-string",
        "5 Error",
        "a cniVersion that is no string is refused with code 6",
        version_not_a_string,
    ),
];

fn args_ignored(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let args = json!({"org.example.conformance": {"labels": [{"key": "a", "value": "b"}]}});
    bench.run(bench.on("ADD", &container).set("args", args))?.result().map(drop)
}

fn runtime_config_ignored(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container).set("runtimeConfig", json!({})))?.result().map(drop)
}

fn name_missing(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container).unset("name"))?.failed_with(&[7]).map(drop)
}

fn name_invalid(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    for name in ["a/b", "../a", "-a", "a b", ""] {
        bench.run(bench.on("ADD", &container).set("name", name))?.failed_with(&[7])?;
    }
    Ok(())
}

fn not_json(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    for verb in ["ADD", "DEL"] {
        bench.run(bench.on(verb, &container).stdin("{ this is not JSON"))?.failed_with(&[6])?;
    }
    Ok(())
}

fn empty(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container).stdin(""))?.failed_with(&[5, 6]).map(drop)
}

fn version_not_a_string(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    bench.run(bench.on("ADD", &container).set("cniVersion", 7))?.failed_with(&[6]).map(drop)
}
