//! Pushes the archive into a registry.
//!
//! It is skopeo that does it, which finds credentials, certificates and mirrors where podman has them. A library for
//! that would have brought three times the crates that xtask has.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};

use crate::command;
use crate::progress::Step;
use crate::set_up;

/// What a failure of skopeo has in it, and what to do then.
const ADVICE: [(&[&str], &str); 4] = [
    (
        &["server gave HTTP response to HTTPS client"],
        "the registry speaks plain HTTP: --insecure permits that",
    ),
    (
        &["x509:", "certificate"],
        "this machine knows no authority that vouches for the registry: install its certificate, or use --insecure",
    ),
    (
        &["unauthorized", "authentication required", "denied", "status 401", "status 403"],
        "the registry wants to know who pushes: `skopeo login` (or docker, podman) keeps credentials where they are \
         found, and REGISTRY_AUTH_FILE names a file with them",
    ),
    (
        &["connection refused", "no such host", "i/o timeout", "no route to host", "unreachable"],
        "the registry cannot be reached: check its name and port, and the network",
    ),
];

/// Installs what is needed, before anything is built.
pub(super) fn prepare() -> Result<()> {
    set_up::pusher().map(drop)
}

/// Where an image goes: `registry.example.com:5000/net/podwire:0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Name or address, and port.
    registry: String,
    path: String,
    tag: String,
}

impl Destination {
    /// Pushes an archive of one image, whose digest stays.
    pub(super) fn push(&self, archive: &Path, digest: &str, insecure: bool) -> Result<()> {
        let Self { registry, path, tag } = self;
        let mut step = Step::start(format!("pushing to {registry}"));
        let digest_file = archive.with_extension("pushed");
        let mut skopeo = Command::new(set_up::pusher()?);
        // No policy: what is read is our own file.
        skopeo.args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--digestfile"]);
        skopeo.arg(&digest_file);
        if insecure || self.is_on_this_machine() {
            skopeo.arg("--dest-tls-verify=false");
        }
        skopeo.arg(format!("oci-archive:{}", archive.display()));
        skopeo.arg(format!("docker://{registry}/{path}:{tag}"));
        command::stream(&mut skopeo, |line| {
            step.note(line);
            true
        })
        .map_err(|error| explain(&error))?;
        let arrived =
            fs::read_to_string(&digest_file).context("read the digest that was pushed")?;
        let _ = fs::remove_file(&digest_file);
        ensure!(arrived.trim() == digest, "{digest} was pushed, and became {}", arrived.trim());
        step.done();
        println!("Pushed: {registry}/{path}:{tag}, which is {registry}/{path}@{digest}");
        Ok(())
    }

    /// What is said to it stays on this machine, encrypted or not.
    fn is_on_this_machine(&self) -> bool {
        let end = self.registry.rfind(':').filter(|at| !self.registry[*at..].contains(']'));
        let host = &self.registry[..end.unwrap_or(self.registry.len())];
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const FORM: &str = "REGISTRY/NAME:TAG is wanted, such as registry.example.com/podwire:1";
        if text.contains('@') {
            bail!("the digest is the image's own, and cannot be chosen: {FORM}");
        }
        if text.contains("://") {
            bail!("a reference has no scheme: {FORM}");
        }
        let (registry, rest) = text.split_once('/').unwrap_or_default();
        let names_registry = registry == "localhost" || registry.contains(['.', ':']);
        ensure!(names_registry, "it names no registry: {FORM}");
        let (path, tag) = rest.rsplit_once(':').unwrap_or((rest, ""));
        ensure!(!tag.is_empty(), "it has no tag: {FORM}");
        ensure!(!path.is_empty(), "it names no image: {FORM}");
        let [registry, path, tag] = [registry, path, tag].map(str::to_owned);
        Ok(Self { registry, path, tag })
    }
}

/// Puts what to do in front of what skopeo said.
fn explain(error: &Error) -> Error {
    let said = format!("{error:#}");
    // What is in front names files and images.
    let reason = said.lines().last().unwrap_or_default();
    let fits = |words: &&[&str]| words.iter().any(|word| reason.contains(word));
    match ADVICE.iter().find(|(words, _)| fits(words)) {
        Some((_, advice)) => Error::msg(format!("push the image: {advice}\n{said}")),
        None => Error::msg(format!("push the image: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_registry_image_and_tag() {
        let parts = |text: &str| {
            let Destination { registry, path, tag } = text.parse().expect(text);
            (registry, path, tag)
        };
        let expected = |parts: [&str; 3]| {
            let [registry, path, tag] = parts.map(str::to_owned);
            (registry, path, tag)
        };
        for (text, wanted) in [
            ("r.example.com/podwire:1", ["r.example.com", "podwire", "1"]),
            ("localhost:5000/a/b:v1.2", ["localhost:5000", "a/b", "v1.2"]),
            ("[::1]:5000/podwire:1", ["[::1]:5000", "podwire", "1"]),
        ] {
            assert_eq!(parts(text), expected(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        for (text, missing) in [
            ("podwire:1", "names no registry"),
            ("net/podwire:1", "names no registry"),
            ("r.example.com/podwire", "has no tag"),
            ("r.example.com:5000/podwire", "has no tag"),
            ("r.example.com/:1", "names no image"),
            ("https://r.example.com/podwire:1", "has no scheme"),
            ("r.example.com/podwire@sha256:00", "cannot be chosen"),
        ] {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.contains(missing), "{text}: {error}");
        }
    }

    #[test]
    fn plain_http_needs_no_flag_on_this_machine_alone() {
        let is_here = |registry: &str| {
            let destination: Destination = format!("{registry}/podwire:1").parse().expect("one");
            destination.is_on_this_machine()
        };
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.8.0.1"]
        {
            assert!(is_here(registry), "{registry}");
        }
        for registry in
            ["localhost.example.com", "10.0.0.1:5000", "[fd00::1]:5000", "127.example.com"]
        {
            assert!(!is_here(registry), "{registry}");
        }
    }

    #[test]
    fn a_failure_says_what_to_do() {
        for (said, advice) in [
            ("dial tcp 127.0.0.1:1: connect: connection refused", "cannot be reached"),
            (
                "pinging: Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client",
                "--insecure",
            ),
            ("reading manifest: unauthorized: who are you?", "REGISTRY_AUTH_FILE"),
            ("x509: certificate signed by unknown authority", "its certificate"),
            ("no space left on device", "no space"),
        ] {
            let said = format!("`skopeo copy oci-archive:denied.tar` failed:\n{said}");
            let error = explain(&Error::msg(said.clone())).to_string();
            assert!(error.contains(advice) && error.contains(&said), "{error}");
        }
    }
}
