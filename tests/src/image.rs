//! A container image of one program, busybox, made without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::command;

/// The image's name. No registry has it.
pub const NAME: &str = "registry.invalid/busybox:1";

/// The distribution's, linked statically.
const BUSYBOX: &str = "/bin/busybox";

/// Makes the image's archive in a directory, of the form of `docker save`, which all runtimes read.
///
/// # Errors
/// When busybox is missing, or a file cannot be written.
pub fn make(directory: &Path) -> Result<PathBuf> {
    let (root, image) = (directory.join("rootfs"), directory.join("image"));
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "www"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::create_dir_all(&image)?;
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("copy busybox (busybox-static)")?;
    for name in ["sh", "httpd", "wget", "cat", "ip", "sysctl", "nc"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    tar(&root, &image.join("layer.tar"))?;
    let sum = command::run(Command::new("sha256sum").arg(image.join("layer.tar")))?;
    let digest = sum.split(' ').next().context("sha256sum")?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/bin/busybox"],
            "Cmd": ["tail", "-f", "/dev/null"],
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    fs::write(image.join("config.json"), config.to_string())?;
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    let archive = directory.join("image.tar");
    tar(&image, &archive)?;
    Ok(archive)
}

fn tar(from: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(to).arg("--directory").arg(from);
    let names = fs::read_dir(from)?.flatten().map(|entry| entry.file_name());
    command::run(tar.args(names)).map(drop)
}
