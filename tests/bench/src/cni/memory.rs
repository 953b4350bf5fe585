//! How much memory agent and plugin take.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};
use serde_json::{Value, json};
use tests::memory::of_process;
use tests::namespace::Namespace;

use super::contender::Contender;

/// Attachments that GC is told of.
const VALID: usize = 1000;

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Resident memory of the agent, and the part of it that no file holds.
    pub(super) rss: u64,
    pub(super) anonymous: u64,
    /// The plugin's file, and whether it needs no other.
    pub(super) bytes: u64,
    pub(super) is_static: bool,
    /// The most that was resident of a verb.
    pub(super) peak: u64,
}

/// Size of a program's file, and whether it is linked statically: it asks for no interpreter and no library.
///
/// # Errors
/// When it cannot be read as ELF.
pub(super) fn binary(path: &Path) -> Result<(u64, bool)> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let is_static = is_static(&bytes).with_context(|| format!("read {}", path.display()))?;
    Ok((bytes.len() as u64, is_static))
}

fn is_static(bytes: &[u8]) -> Result<bool> {
    let file = ElfFile64::<Endianness>::parse(bytes)?;
    let endian = file.endian();
    let mut is_static = true;
    for segment in file.elf_header().program_headers(endian, bytes)? {
        is_static &= segment.p_type(endian) != elf::PT_INTERP;
        for entry in segment.dynamic(endian, bytes)?.unwrap_or_default() {
            is_static &= entry.tag(endian) != elf::DT_NEEDED;
        }
    }
    Ok(is_static)
}

/// The most that was resident of any verb.
///
/// # Errors
/// When a verb fails, or cannot be traced.
pub(super) fn peak(contender: &Contender, pod: &Namespace) -> Result<u64> {
    let peak = |verb, more| of_verb(contender, pod, verb, &more).context(verb);
    let mut peaks = vec![peak("ADD", json!({}))?];
    contender.del(pod)?;
    let (result, _) = contender.add(pod)?;
    let valid = |n: usize| json!({ "containerID": format!("{n:064x}"), "ifname": "eth0" });
    let valid: Vec<Value> = (0..VALID).map(valid).collect();
    // Of a network that nobody else is in.
    let gc = json!({ "name": "nobody", "cni.dev/valid-attachments": valid });
    peaks.push(peak("CHECK", json!({ "prevResult": result }))?);
    peaks.push(peak("GC", gc)?);
    peaks.push(peak("STATUS", json!({}))?);
    peaks.push(peak("DEL", json!({ "prevResult": result }))?);
    peaks.into_iter().max().context("no verb")
}

/// Asked of the kernel at the end of the process, which is traced for that: what `wait4` tells is that of
/// the process that has started it, where that is larger.
fn of_verb(contender: &Contender, pod: &Namespace, verb: &str, more: &Value) -> Result<u64> {
    let (mut command, input) = contender.command(verb, pod, more);
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    // SAFETY: between fork and exec only a system call is made.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    // The thread that starts it is the one that traces it.
    contender.host.enter(|| -> Result<u64> {
        let mut child = command.spawn().context("start the plugin")?;
        let pid = Pid::from_raw(child.id().cast_signed());
        waitpid(pid, None).context("wait for the plugin's first step")?;
        ptrace::setoptions(pid, Options::PTRACE_O_TRACEEXIT | Options::PTRACE_O_EXITKILL)?;
        let mut stdin = child.stdin.take().context("its input")?;
        ptrace::cont(pid, None)?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        trace(pid)
    })
}

fn trace(pid: Pid) -> Result<u64> {
    let mut peak = None;
    loop {
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(..) => {
                peak = Some(of_process(pid.as_raw().cast_unsigned())?.peak);
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            WaitStatus::Exited(_, code) => {
                ensure!(code == 0, "it failed while its memory was measured");
                return peak.context("the plugin ended unseen");
            }
            other @ (WaitStatus::Signaled(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive) => anyhow::bail!("the plugin: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests_of_memory {
    use super::*;

    #[test]
    fn this_process_is_linked_dynamically() {
        let (bytes, is_static) = binary(&std::env::current_exe().unwrap()).unwrap();
        assert!(bytes > 100_000 && !is_static);
        assert!(is_static_of(b"no program").is_err());
    }

    fn is_static_of(bytes: &[u8]) -> Result<bool> {
        is_static(bytes)
    }
}
