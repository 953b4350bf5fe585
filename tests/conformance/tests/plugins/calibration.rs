//! The reference plugins fail what is listed under `known/`, and nothing else.

use std::path::Path;

use anyhow::{Result, ensure};

use super::ground::{Ground, REFERENCE, Ran, run};

fn calibrate(plugin: &str) -> Result<Ran> {
    let ground = Ground::new()?;
    let path = Path::new(REFERENCE).join(plugin);
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("known");
    let mut kit = ground.kit(&path, plugin)?;
    kit.arg("--known").arg(known.join("reference-library.toml"));
    kit.arg("--known").arg(known.join(format!("{plugin}.toml")));
    let ran = run(&mut kit)?;
    ensure!(ran.surprises().is_empty(), "{}", ran.surprises().join("\n"));
    ensure!(ran.code == Some(0), "exit status {:?}: {}", ran.code, ran.stderr);
    ensure!(ran.report["counts"]["passed"].as_u64() > Some(50), "{}", ran.report["counts"]);
    Ok(ran)
}

#[test]
fn bridge() {
    calibrate("bridge").unwrap();
}

#[test]
fn ptp() {
    calibrate("ptp").unwrap();
}

#[test]
fn macvlan() {
    calibrate("macvlan").unwrap();
}

#[test]
fn host_local() {
    calibrate("host-local").unwrap();
}

#[test]
fn tuning() {
    calibrate("tuning").unwrap();
}
