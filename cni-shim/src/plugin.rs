//! From the environment to a document on standard output.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::error::{Context as _, DECODE, INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, failure};
use crate::protocol::Failure;
use crate::request::{Config, Environment, VERSIONS};
use crate::result::behind;
use crate::{spelling, verbs};

/// Version of error documents where the request names none that is supported.
const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];

/// Runs the plugin as a runtime calls it.
pub fn run() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--fault-steps")
        && cfg!(feature = "fault-injection")
    {
        println!("{}", crate::fault::STEPS.join("\n"));
        return ExitCode::SUCCESS;
    }
    if std::env::args().nth(1).as_deref() == Some("--ipam-fault-steps")
        && cfg!(feature = "fault-injection")
    {
        println!("{}", crate::fault::IPAM_STEPS.join("\n"));
        return ExitCode::SUCCESS;
    }
    let environment = Environment::read();
    if environment.command.is_empty() && std::io::stdin().is_terminal() {
        eprintln!(
            "podwire {}, a CNI plugin for versions {}. A container runtime runs it; \
             by hand, set CNI_COMMAND=VERSION.",
            env!("CARGO_PKG_VERSION"),
            VERSIONS.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let mut version = NEWEST;
    match answer(&environment, &mut version) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(document)) => print(&document, ExitCode::SUCCESS),
        Err(error) => {
            let mut document = json!({
                "cniVersion": version,
                "code": error.code,
                "msg": error.message,
            });
            // Ours always have some; those of delegated plugins pass as they are.
            if !error.details.is_empty() {
                document["details"] = error.details.into();
            }
            print(&document, ExitCode::FAILURE)
        }
    }
}

fn print(document: &Value, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{document}") {
        Ok(()) => code,
        Err(error) => {
            eprintln!("podwire: write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(environment: &Environment, version: &mut &'static str) -> Result<Option<Value>, Failure> {
    let verb = environment.command.as_str();
    let since = match verb {
        "VERSION" => return versions().map(Some),
        "ADD" | "DEL" => "0.3.0",
        "CHECK" => "0.4.0",
        "STATUS" | "GC" => "1.1.0",
        _ => {
            return Err(failure(
                INVALID_ENVIRONMENT,
                format!("CNI_COMMAND is {verb:?}"),
                "one of ADD, DEL, CHECK, STATUS, GC, VERSION",
            ));
        }
    };
    let config = Config::read(std::io::stdin())?;
    *version = config.version()?;
    let age = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
    if age(version) < age(since) {
        return Err(failure(
            INCOMPATIBLE_VERSION,
            format!("config version does not allow {verb}"),
            format!("\"cniVersion\" is {version}; {verb} is there from {since} on"),
        ));
    }
    config.check_socket()?;
    match verb {
        "ADD" => {
            config.check()?;
            for warning in spelling::warnings(config.unknown.keys()) {
                eprintln!("podwire: {warning}");
            }
            let result = verbs::add(environment, &config)?;
            behind(config.prev_result.as_ref(), result.to_json(version)).map(Some)
        }
        "DEL" => verbs::del(environment, &config).map(|()| None),
        "CHECK" => verbs::check(environment, &config).map(|()| None),
        "STATUS" => verbs::status(environment, &config).map(|()| None),
        _ => verbs::gc(environment, &config).map(|()| None),
    }
}

/// VERSION: what is supported, in the version that was asked in. People ask by hand and without input.
fn versions() -> Result<Value, Failure> {
    let mut text = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin()
            .read_to_string(&mut text)
            .context(DECODE, || "read standard input of VERSION".into())?;
    }
    let input: Value = match text.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text)
            .context(DECODE, || "standard input of VERSION is no JSON document".into())?,
    };
    let asked = input["cniVersion"].as_str().unwrap_or(NEWEST);
    Ok(json!({"cniVersion": asked, "supportedVersions": VERSIONS}))
}
