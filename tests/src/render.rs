//! What is shipped for Kubernetes, as the libraries of Helm and Kustomize render it (`tests/go/render`).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{binaries, command};

/// A file of the project.
pub fn file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Renders a `chart` (with more: release, namespace, values), a `kustomization` or a `manifest` of the project.
///
/// # Errors
/// When Helm, Kustomize or Kubernetes cannot make sense of it.
pub fn render(what: &str, path: &str, mut more: Value) -> Result<Value> {
    let call = more.as_object_mut().context("an object")?;
    call.insert("what".to_owned(), what.into());
    call.insert("path".to_owned(), file(path).to_string_lossy().into());
    let mut program = command::limited(&binaries::go("render")?.to_string_lossy());
    let output = command::feed(&mut program, &more.to_string())?;
    Ok(serde_json::from_str(&command::checked(&program, &output)?)?)
}
