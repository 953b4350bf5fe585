//! Runs other programs, with errors that say which one failed and what it said.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that an error shows.
const TAIL_LINES: usize = 30;

/// Runs a program on our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a program and returns its standard output, without the space around it.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program and hands over each line it prints. The last lines of which `on_line` says that they
/// are for people go into the error.
pub(crate) fn stream(command: &mut Command, mut on_line: impl FnMut(&str) -> bool) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start `{}`", line(command)))?;
    // The command holds our copies of the pipe: without this the end of output never comes.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut tail = std::collections::VecDeque::new();
    for text in BufReader::new(reader).split(b'\n') {
        let text = String::from_utf8_lossy(&text?).trim_end().to_owned();
        if !on_line(&text) {
            continue;
        }
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
    let status = child.wait()?;
    if !status.success() {
        let tail: Vec<String> = tail.into();
        bail!("`{}` failed ({status}):\n{}", line(command), tail.join("\n"));
    }
    Ok(())
}

/// Returns a cargo command that builds as if a person had typed it: what the surrounding `cargo run`,
/// or a build of something else, has put into the environment is gone.
pub(crate) fn cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if leaks(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a variable changes what is built. Where to fetch from and how to print may stay.
fn leaks(name: &OsString) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_TERM_",
    ];
    let name = name.to_string_lossy();
    let of_cargo = name == "CARGO" || name.starts_with("CARGO_");
    let of_rust = name.starts_with("RUSTC")
        || name.starts_with("RUSTFLAGS")
        || name.starts_with("RUSTDOC")
        || name == "RUSTUP_TOOLCHAIN"
        || name == "RUST_RECURSION_COUNT"
        || name == "LD_LIBRARY_PATH";
    of_rust || (of_cargo && !KEPT.iter().any(|kept| name.starts_with(kept)))
}

/// Returns a command as a person would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_surrounding_build_leak() {
        for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTC", "RUSTFLAGS", "CARGO_PKG_NAME"] {
            assert!(leaks(&name.into()), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "RUST_BACKTRACE", "PATH"] {
            assert!(!leaks(&name.into()), "{name}");
        }
    }

    #[test]
    fn stream_hands_over_lines_of_both_outputs() {
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        let command = shell.args(["-c", "echo a; echo b >&2"]);
        stream(command, |line| {
            lines.push(line.to_owned());
            true
        })
        .unwrap();
        assert_eq!(lines, ["a", "b"]);
    }

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let mut shell = Command::new("sh");
        let command = shell.args(["-c", "echo 45 %; echo no disk; exit 3"]);
        let error = stream(command, |line| !line.ends_with('%')).unwrap_err().to_string();
        assert!(error.ends_with("(exit status: 3):\nno disk"), "{error}");
    }
}
