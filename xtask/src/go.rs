//! Builds the Go programs of the tests: `cnitool`, and those of `tests/go`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{command, paths, progress::Step};

/// The distribution's: the same whatever else is on the path.
const GO: &str = "/usr/bin/go";
/// The module of what calls the plugin and container runtimes.
const CALLERS: &str = "tests/go";
/// The CNI project's module.
const CNI: &str = "github.com/containernetworking/cni";
/// What libcni imports from the standard library and older releases of Go lack: its file, the package,
/// and what stands in for it.
const MISSING_IN_OLDER: [[&str; 3]; 2] = [
    ["libcni/api.go", "errors", "podwire/tests/go/older/errors"],
    ["libcni/conf.go", "slices", "podwire/tests/go/older/slices"],
];

/// Builds what calls the plugin and container runtimes. Whatever Go downloads and caches stays below `target/`.
pub(crate) fn build_callers() -> Result<()> {
    let step = Step::start("building cnitool and the Go programs of the tests".to_owned());
    let mut build = build_in(CALLERS);
    let root: PathBuf = command::output(go(CALLERS).args(["env", "GOROOT"]))?.into();
    if !root.join("src/slices").exists() {
        build.arg("-overlay").arg(overlay()?);
    }
    build.args(["./cri", "./libcni", &format!("{CNI}/cnitool")]);
    command::output(&mut build).context("build the Go programs")?;
    step.done();
    Ok(())
}

/// Builds the registry that the image is pushed to, and what looks into it.
pub(crate) fn build_registry() -> Result<()> {
    let step = Step::start("building a registry".to_owned());
    command::output(build_in("tests/go/registry").arg(".")).context("build tests/go/registry")?;
    step.done();
    Ok(())
}

/// Builds what renders the Helm chart and the Kustomize base. It is a module of its own, as the registry is: its
/// dependencies would raise the versions of the others.
pub(crate) fn build_renderer() -> Result<()> {
    let step = Step::start("building Helm's engine and Kustomize".to_owned());
    command::output(build_in("tests/go/render").arg(".")).context("build tests/go/render")?;
    step.done();
    Ok(())
}

/// Returns the directory of the built programs.
pub(crate) fn programs() -> PathBuf {
    paths::go().join("bin")
}

fn build_in(module: &str) -> Command {
    let mut build = go(module);
    build.args(["build", "-o"]).arg(programs().join(""));
    build
}

fn go(module: &str) -> Command {
    let directory = paths::go();
    let mut go = Command::new(GO);
    go.current_dir(paths::root().join(module))
        .env("GOPATH", directory.join("path"))
        .env("GOCACHE", directory.join("cache"))
        .env("GOFLAGS", "-mod=readonly -modcacherw -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env_remove("GOROOT");
    go
}

/// Writes copies of files of libcni that import what stands in for newer packages, and the list of them.
fn overlay() -> Result<PathBuf> {
    command::output(go(CALLERS).args(["mod", "download", CNI])).context("download libcni")?;
    let module = command::output(go(CALLERS).args(["list", "-m", "-f", "{{.Dir}}", CNI]))?;
    let directory = paths::go().join("overlay");
    fs::create_dir_all(&directory)?;
    let mut replaced = serde_json::Map::new();
    for [file, package, instead] in MISSING_IN_OLDER {
        let original = Path::new(&module).join(file);
        let text = fs::read_to_string(&original)?;
        let import = format!("\n\t\"{package}\"\n");
        ensure!(text.contains(&import), "{} imports no {package}", original.display());
        let copy = directory.join(file.replace('/', "-"));
        fs::write(&copy, text.replace(&import, &format!("\n\t{package} \"{instead}\"\n")))?;
        replaced.insert(original.display().to_string(), copy.display().to_string().into());
    }
    let list = directory.join("overlay.json");
    fs::write(&list, serde_json::json!({ "Replace": replaced }).to_string())?;
    Ok(list)
}
