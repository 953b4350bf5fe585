//! Programs that are run and looked at.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// No program of a test takes longer than this, in seconds, unless it says so.
const SECONDS_MAX: &str = "60";

/// A program that is ended when it takes too long.
pub fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", SECONDS_MAX, program]);
    command
}

/// Runs it and returns all that it gives.
///
/// # Errors
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let name = text(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))
}

/// Runs it and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails, with all that it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    checked(command, &output)
}

/// Runs it with an input and returns all that it gives.
///
/// # Errors
/// When it cannot be started.
pub fn feed(command: &mut Command, input: &str) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", text(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child.wait_with_output()?)
}

/// Makes a program of a script.
///
/// `install` writes it, not this process: a child that another thread has begun to start would hold the file open
/// for writing until it runs its program, and nobody could run the script before ("Text file busy").
///
/// # Errors
/// When it cannot be written.
pub fn write_program(path: &Path, script: &str) -> Result<()> {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path);
    let output = feed(&mut install, script)?;
    checked(&install, &output).map(drop)
}

/// Runs it with an input, its output into a file: what it starts may outlive it.
///
/// # Errors
/// When it cannot be started.
pub fn run_apart(command: &mut Command, input: &str, output: &Path) -> Result<ExitStatus> {
    let file = File::create(output)?;
    command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("start {}", text(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child.wait()?)
}

/// Its standard output, if it succeeded.
///
/// # Errors
/// When it failed, with all that it printed.
pub fn checked(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{stdout}{stderr}", text(command), output.status);
    }
    Ok(stdout)
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(std::ffi::OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Process(Option<Child>);

impl Process {
    /// Takes over a child.
    pub fn new(child: Child) -> Self {
        Self(Some(child))
    }

    /// Its id; none after it was let go.
    pub fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Lets it live on.
    pub fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
