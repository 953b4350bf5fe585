//! What the kernel can do, found by asking it to.

use super::finding::Finding;
use super::node::Node;
use crate::advice::Advice;
use crate::kernel::live::preflight;
use crate::kernel::live::probe::features::{self, Refusal};
use crate::kernel::live::probe::{Answer, Probe, devices};

const NEWER: &str = "boot a kernel of 6.6 or newer, with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_XGRESS";

pub(super) async fn examine(node: &Node) -> Vec<Finding> {
    let checks = preflight::checks(&node.around.bpffs);
    let is_privileged =
        checks.iter().any(|check| check.name == preflight::PRIVILEGES && check.result.is_ok());
    let mut findings: Vec<Finding> = checks.into_iter().map(of_preflight).collect();
    findings.push(types(features::has_types()));
    findings.push(probed("BPF program type", &features::program_types(), NEWER));
    findings.push(match features::map_types() {
        Ok(probes) => probed("BPF map types", &probes, NEWER),
        Err(error) => Finding::failure(
            "BPF map types",
            Advice::new(error.to_string(), "install podwire-agent again: its file is damaged"),
        ),
    });
    findings.push(probed("BPF helpers", &features::helpers(), NEWER));
    findings.push(programs(node.trial.as_ref().err(), is_privileged));
    if let Ok(trial) = &node.trial {
        let probe = Probe { name: "links at TCX hooks".to_owned(), answer: trial.tcx() };
        findings.push(probed("TCX", &[probe], NEWER));
    }
    let kinds: &[&str] = if node.has_tunnel() { &["veth", "vxlan"] } else { &["veth"] };
    let modules = "install the modules of this kernel (`modprobe veth vxlan` says what is missing)";
    findings.push(probed("device kinds", &devices::kinds(kinds).await, modules));
    findings.push(nftables(features::nftables().await.map_err(|error| error.to_string())));
    findings.push(compiler(node.sysctl("net/core/bpf_jit_enable").as_deref()));
    findings
}

fn of_preflight(check: preflight::Check) -> Finding {
    match check.result {
        Ok(found) => Finding::ok(check.name, found),
        Err(fault) => {
            let found = format!("{}: {}", fault.what, fault.advice.found);
            Finding::failure(check.name, Advice::new(found, fault.advice.remedy))
        }
    }
}

fn types(are_there: bool) -> Finding {
    let check = "type information";
    if are_there {
        return Finding::ok(check, "/sys/kernel/btf/vmlinux");
    }
    Finding::warning(
        check,
        Advice::new(
            "there is no /sys/kernel/btf/vmlinux: tools cannot show what programs and maps hold",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF, as distributions have it",
        ),
    )
}

/// What is missing counts first, then what could not be asked for.
fn probed(check: &str, probes: &[Probe], remedy: &str) -> Finding {
    let names = |wanted: fn(&Answer) -> bool| {
        let probes = probes.iter().filter(|probe| wanted(&probe.answer));
        probes.map(|probe| probe.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let missing = names(|answer| *answer == Answer::No);
    if !missing.is_empty() {
        return Finding::failure(check, Advice::new(format!("the kernel lacks {missing}"), remedy));
    }
    let why = probes.iter().find_map(|probe| match &probe.answer {
        Answer::Unknown(why) => Some(why),
        Answer::Yes | Answer::No => None,
    });
    let present = names(|answer| *answer == Answer::Yes);
    match why {
        Some(why) => Finding::unseen(check, why),
        None => Finding::ok(check, present),
    }
}

fn programs(refusal: Option<&Refusal>, is_privileged: bool) -> Finding {
    let check = "BPF programs";
    match refusal {
        None => Finding::ok(check, "the kernel takes all programs and maps"),
        Some(refusal) if refusal.is_denied && refusal.verifier.is_empty() => {
            if !is_privileged {
                return Finding::unseen(check, &refusal.why);
            }
            let found = format!("{}, though the privileges are there", refusal.why);
            let remedy = "let the container's seccomp profile allow bpf(2) to who has CAP_BPF, as that of containerd \
                          does; on a bare host, see what `cat /sys/kernel/security/lockdown` says";
            Finding::failure(check, Advice::new(found, remedy))
        }
        Some(refusal) => {
            let mut found = format!("{}: {}", refusal.program.unwrap_or("maps"), refusal.why);
            for line in &refusal.verifier {
                found.push_str("\n  ");
                found.push_str(line);
            }
            let remedy = "send these lines and the kernel's version to Podwire's developers; until then, boot \
                          another kernel";
            Finding::failure(check, Advice::new(found, remedy))
        }
    }
}

fn nftables(result: Result<(), String>) -> Finding {
    let check = "nftables";
    match result {
        Ok(()) => Finding::ok(check, "nft and the kernel take the table"),
        Err(why) if why.contains("Operation not permitted") => Finding::unseen(check, why),
        Err(why) => Finding::failure(
            check,
            Advice::new(
                why,
                "install nftables 1.0 or newer and the kernel's modules nf_tables, nft_nat, nft_masq, nft_ct and \
                 nft_fib_inet",
            ),
        ),
    }
}

fn compiler(value: Option<&str>) -> Finding {
    let check = "BPF compiler";
    match value {
        // Only the machine's first network namespace has it.
        None => Finding::unseen(check, "net.core.bpf_jit_enable is not in this network namespace"),
        Some("0") => Finding::warning(
            check,
            Advice::new(
                "net.core.bpf_jit_enable is 0: programs are interpreted, which is several times slower",
                "`sysctl net.core.bpf_jit_enable=1`, also in /etc/sysctl.d",
            ),
        ),
        Some(value) => Finding::ok(check, format!("net.core.bpf_jit_enable is {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn probe(name: &str, answer: Answer) -> Probe {
        Probe { name: name.to_owned(), answer }
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_unknown_is_a_note() {
        let unknown = Answer::Unknown("Operation not permitted".to_owned());
        let all = [probe("a", Answer::Yes), probe("b", Answer::No), probe("c", unknown)];
        let finding = probed("helpers", &all, "boot another");
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.found.ends_with("lacks b"), "{}", finding.found);
        assert_eq!(finding.remedy.as_deref(), Some("boot another"));
        let finding = probed("helpers", &[all[0].clone(), all[2].clone()], "");
        assert_eq!(finding.state, Severity::Note);
        assert!(finding.found.contains("not permitted"), "{}", finding.found);
        assert_eq!(probed("helpers", &all[..1], "").state, Severity::Ok);
    }

    #[test]
    fn a_refused_program_is_shown_with_the_end_of_the_log() {
        let mut refusal = Refusal {
            program: Some("pw_from_net"),
            why: "Permission denied".to_owned(),
            verifier: vec!["invalid access to packet".to_owned()],
            is_denied: true,
        };
        let finding = programs(Some(&refusal), true);
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.found.ends_with("Permission denied\n  invalid access to packet"));
        refusal.verifier.clear();
        assert_eq!(programs(Some(&refusal), false).state, Severity::Note);
        let finding = programs(Some(&refusal), true);
        assert_eq!(finding.state, Severity::Failure);
        assert!(finding.remedy.unwrap().contains("seccomp"));
    }

    #[test]
    fn programs_that_are_interpreted_are_a_warning() {
        assert_eq!(compiler(Some("0")).state, Severity::Warning);
        assert_eq!(compiler(Some("1")).state, Severity::Ok);
        assert_eq!(compiler(None).state, Severity::Note);
    }
}
