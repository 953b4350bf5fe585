//! What the kernel can do of what the programs need: found by asking it to, never by its version.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType, SchedClassifier};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use aya::{Ebpf, EbpfLoader};
use aya_obj::generated::bpf_map_type;
use dataplane_core::abi::names::PROGRAMS;

use super::{Answer, Probe};
use crate::kernel::KernelError;
use crate::kernel::live::bpf::{classifier, unless_interrupted};
use crate::kernel::live::{OBJECT, nft, syscall};

/// Types of the kernel, by which bpffs entries and core dumps can be read.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// All that the programs call.
const HELPERS: [BpfHelper; 19] = [
    BpfHelper::BPF_FUNC_map_lookup_elem,
    BpfHelper::BPF_FUNC_ktime_get_ns,
    BpfHelper::BPF_FUNC_get_prandom_u32,
    BpfHelper::BPF_FUNC_skb_get_tunnel_key,
    BpfHelper::BPF_FUNC_skb_set_tunnel_key,
    BpfHelper::BPF_FUNC_redirect,
    BpfHelper::BPF_FUNC_skb_load_bytes,
    BpfHelper::BPF_FUNC_skb_change_type,
    BpfHelper::BPF_FUNC_skb_change_tail,
    BpfHelper::BPF_FUNC_skb_pull_data,
    BpfHelper::BPF_FUNC_csum_update,
    BpfHelper::BPF_FUNC_set_hash,
    BpfHelper::BPF_FUNC_skb_adjust_room,
    BpfHelper::BPF_FUNC_fib_lookup,
    BpfHelper::BPF_FUNC_jiffies64,
    BpfHelper::BPF_FUNC_ringbuf_reserve,
    BpfHelper::BPF_FUNC_ringbuf_submit,
    BpfHelper::BPF_FUNC_redirect_neigh,
    BpfHelper::BPF_FUNC_redirect_peer,
];

/// How much of the verifier's log is shown: its last lines say why.
const VERIFIER_LINES: usize = 6;

/// Whether the kernel tells of its types.
pub fn has_types() -> bool {
    Path::new(TYPES).exists()
}

/// The type of the programs.
pub fn program_types() -> Vec<Probe> {
    let answer = is_program_supported(ProgramType::SchedClassifier);
    vec![Probe { name: "sched_cls".to_owned(), answer: answer_of(answer) }]
}

/// The types of the maps.
///
/// # Errors
/// When this program was built wrongly.
pub fn map_types() -> Result<Vec<Probe>, KernelError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(|error| broken(error.to_string()))?;
    let types: BTreeSet<u32> = object.maps.values().map(aya_obj::Map::map_type).collect();
    let probe = |number: u32| {
        let kind =
            bpf_map_type::try_from(number).map_err(|_| broken(format!("map type {number}")))?;
        let name = format!("{kind:?}").trim_start_matches("BPF_MAP_TYPE_").to_lowercase();
        let kind = MapType::try_from(kind).map_err(|error| broken(error.to_string()))?;
        Ok(Probe { name, answer: answer_of(is_map_supported(kind)) })
    };
    types.into_iter().map(probe).collect()
}

/// The helpers that the programs call.
pub fn helpers() -> Vec<Probe> {
    let probe = |helper: BpfHelper| Probe {
        name: name_of(helper),
        answer: answer_of(is_helper_supported(ProgramType::SchedClassifier, helper)),
    };
    HELPERS.map(probe).into()
}

/// Whether `nft` and the kernel take a table like ours. Must be called inside a tokio runtime.
///
/// # Errors
/// With what `nft` says.
pub async fn nftables() -> Result<(), KernelError> {
    nft::check().await
}

/// The programs in the kernel, with maps of their own and without any pin: they go when this is dropped.
pub struct Trial(Ebpf);

/// Why the kernel does not take the programs.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which one; none: the maps.
    pub program: Option<&'static str>,
    /// What the kernel says.
    pub why: String,
    /// The last lines of the verifier's log.
    pub verifier: Vec<String>,
    /// Whether only the rights are missing.
    pub is_denied: bool,
}

impl Trial {
    /// Loads them.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn load() -> Result<Self, Refusal> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| refusal(None, &error))?;
        for name in PROGRAMS {
            let refused = |error: &(dyn Error + 'static)| refusal(Some(name), error);
            let program = classifier(&mut ebpf, name).map_err(|error| refused(&error))?;
            unless_interrupted(|| program.load()).map_err(|error| refused(&error))?;
        }
        Ok(Self(ebpf))
    }

    /// Whether programs can be attached by TCX links.
    ///
    /// An interface with index 0 cannot be. A kernel that knows such links looks for it and says ENODEV, one that
    /// does not know them says EINVAL before (`link_create`, `tcx_link_attach`, as of 6.18).
    pub fn tcx(&self) -> Answer {
        let program = self.programs().next().and_then(|(_, program)| program.fd().ok());
        let Some(program) = program else { return Answer::Unknown("no program".to_owned()) };
        match syscall::attach_nowhere(program.as_fd()) {
            Ok(()) => Answer::Yes,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENODEV) => Answer::Yes,
                Some(libc::EINVAL) => Answer::No,
                _ => Answer::Unknown(error.to_string()),
            },
        }
    }

    /// The tags of this build's programs: a hash of their instructions.
    pub fn tags(&self) -> BTreeMap<&'static str, u64> {
        let tag = |(name, program): (_, &SchedClassifier)| Some((name, program.info().ok()?.tag()));
        self.programs().filter_map(tag).collect()
    }

    fn programs(&self) -> impl Iterator<Item = (&'static str, &SchedClassifier)> {
        let find = |name| Some((name, self.0.program(name)?.try_into().ok()?));
        PROGRAMS.into_iter().filter_map(find)
    }
}

fn refusal(program: Option<&'static str>, error: &(dyn Error + 'static)) -> Refusal {
    let mut is_denied = false;
    let mut verifier = Vec::new();
    let mut why = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        let text = match cause.downcast_ref::<ProgramError>() {
            Some(ProgramError::LoadError { io_error, verifier_log }) => {
                let log = verifier_log.to_string();
                let lines = log.lines().filter(|line| !line.trim().is_empty());
                let lines: Vec<String> = lines.map(str::to_owned).collect();
                let first = lines.len().saturating_sub(VERIFIER_LINES);
                verifier = lines.into_iter().skip(first).collect();
                format!("the kernel does not take it: {io_error}")
            }
            _ => cause.to_string(),
        };
        is_denied |= cause.downcast_ref().is_some_and(is_missing_rights);
        if !why.contains(&text) {
            why = if why.is_empty() { text } else { format!("{why}: {text}") };
        }
    }
    Refusal { program, why, verifier, is_denied }
}

fn is_missing_rights(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn answer_of<E: Error>(result: Result<bool, E>) -> Answer {
    match result {
        Ok(true) => Answer::Yes,
        Ok(false) => Answer::No,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Answer::Unknown(format!("{error}{cause}"))
        }
    }
}

fn name_of(helper: BpfHelper) -> String {
    format!("{helper:?}").replace("BPF_FUNC_", "bpf_")
}

fn broken(why: String) -> KernelError {
    KernelError { what: "read the BPF object".to_owned(), source: why.into() }
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::{BPF_CALL, BPF_JMP};

    use super::*;

    /// By the numbers in the object, so that a program that calls another one is noticed.
    #[test]
    fn all_helpers_that_the_programs_call_are_asked_for() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let instructions = object.functions.values().flat_map(|function| &function.instructions);
        let call = (BPF_JMP | BPF_CALL) as u8;
        // Other numbers in the register are calls of own functions and of the kernel's.
        let calls = instructions.filter(|one| one.code == call && one.src_reg() == 0);
        let called: BTreeSet<i32> = calls.map(|one| one.imm).collect();
        assert_eq!(called, HELPERS.iter().map(|helper| *helper as i32).collect());
    }

    #[test]
    fn names_are_those_of_the_manual() {
        assert_eq!(name_of(BpfHelper::BPF_FUNC_redirect_peer), "bpf_redirect_peer");
        let names: Vec<String> = map_types().unwrap().into_iter().map(|probe| probe.name).collect();
        assert!(names.contains(&"lpm_trie".to_owned()), "{names:?}");
    }

    #[test]
    fn a_refusal_ends_with_what_the_verifier_said_last() {
        let log: String = (0..50).map(|line| format!("{line}: (b7) r0 = 0\n")).collect();
        let error = ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(libc::EACCES),
            verifier_log: aya_obj::VerifierLog::new(format!("{log}invalid access\n\n")),
        };
        let refusal = refusal(Some("pw_from_pod"), &error);
        assert_eq!(refusal.verifier.len(), VERIFIER_LINES);
        assert_eq!(refusal.verifier.last().unwrap(), "invalid access");
        assert!(refusal.why.contains("Permission denied") && !refusal.why.contains("r0"));
    }
}
