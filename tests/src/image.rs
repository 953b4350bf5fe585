//! Container images, made without a registry; and one of them, with busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::command;

/// The busybox image's name. No registry has it.
pub const NAME: &str = "registry.invalid/busybox:1";

/// The distribution's, linked statically.
const BUSYBOX: &str = "/bin/busybox";

/// Makes that image's archive in a directory.
///
/// # Errors
/// When busybox is missing, or a file cannot be written.
pub fn make(directory: &Path) -> Result<PathBuf> {
    let (root, image) = (directory.join("rootfs"), directory.join("image"));
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "www"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("copy busybox (busybox-static)")?;
    for name in ["sh", "httpd", "wget", "cat", "ip", "sysctl", "nc"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    pack(
        &root,
        &image,
        &[NAME],
        &json!({
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/bin/busybox"],
            "Cmd": ["tail", "-f", "/dev/null"],
        }),
        &directory.join("image.tar"),
    )
}

/// Makes an archive, of the form of `docker save`, which all runtimes read: a tree of files, names, and what
/// a container of the image runs. What is on the way there goes into a directory.
///
/// # Errors
/// When a file cannot be written.
pub fn pack(
    root: &Path,
    work: &Path,
    names: &[&str],
    config: &Value,
    archive: &Path,
) -> Result<PathBuf> {
    fs::create_dir_all(work)?;
    tar(root, &work.join("layer.tar"))?;
    let sum = command::run(Command::new("sha256sum").arg(work.join("layer.tar")))?;
    let digest = sum.split(' ').next().context("sha256sum")?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    fs::write(work.join("config.json"), config.to_string())?;
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    tar(work, archive)?;
    Ok(archive.to_owned())
}

fn tar(from: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--file"]).arg(to).arg("--directory").arg(from);
    let names = fs::read_dir(from)?.flatten().map(|entry| entry.file_name());
    command::run(tar.args(names)).map(drop)
}
