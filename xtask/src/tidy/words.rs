//! Words that belong into one place.

use super::{Finding, tree::Tree};

/// A rule: these words, in the sources under these folders, only in these files.
struct Rule {
    words: &'static [&'static str],
    folders: &'static [&'static str],
    allowed: &'static [&'static str],
    why: &'static str,
}

const RULES: [Rule; 5] = [
    Rule {
        words: &["TC_ACT_SHOT", "XDP_DROP"],
        folders: &["dataplane-"],
        allowed: &["dataplane-ebpf/src/drop.rs"],
        why: "every drop goes through drop.rs, which counts it under a reason",
    },
    Rule {
        words: &["data_end"],
        folders: &["dataplane-"],
        allowed: &["dataplane-ebpf/src/packet.rs"],
        why: "raw packet pointers stay in packet.rs",
    },
    Rule {
        words: &["info!", "warn!", "error!"],
        folders: &["dataplane-ebpf/"],
        allowed: &[],
        why: "nothing is logged per packet; debugging builds use trace!",
    },
    Rule {
        words: &["aya", "aya_obj", "rtnetlink", "netlink_sys", "netlink_packet_route"],
        folders: &["dataplane-core/", "dataplane-agent/", "cni-shim/"],
        allowed: &[
            "dataplane-core/src/abi.rs",
            "dataplane-agent/src/kernel.rs",
            "dataplane-agent/src/kernel/",
            "cni-shim/src/kernel.rs",
            "cni-shim/src/kernel/",
        ],
        why: "the kernel is reached through the module `kernel` only",
    },
    Rule {
        words: &["anyhow"],
        folders: &["dataplane-core/", "dataplane-agent/", "cni-shim/"],
        allowed: &[
            "dataplane-agent/src/cli.rs",
            "dataplane-agent/src/main.rs",
            "dataplane-agent/src/run.rs",
            "cni-shim/src/main.rs",
        ],
        why: "modules have typed errors (thiserror); anyhow is for the command line, xtask and tests",
    },
];

/// Words stand where they belong.
pub(super) fn in_their_place(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.sources.iter().filter(|source| !source.is_test()) {
        let rules = RULES.iter().filter(|rule| {
            let starts = |prefix: &&str| source.path.starts_with(*prefix);
            rule.folders.iter().any(starts) && !rule.allowed.iter().any(starts)
        });
        let words = source.words();
        for rule in rules {
            for word in words.iter().filter(|word| !word.is_string) {
                let is_rule = rule.words.iter().any(|wanted| match wanted.strip_suffix('!') {
                    Some(name) => word.text == name && word.next == '!',
                    None => word.text == *wanted,
                });
                if is_rule {
                    let text = format!("`{}`: {}", word.text, rule.why);
                    findings.push(Finding::new(&source.path, word.line, text));
                }
            }
        }
    }
    findings
}

/// Lints are silenced by `#[expect(..., reason)]`, which notices when it is no longer needed.
pub(super) fn no_allow(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        // Clippy does not see attributes of code that is compiled for another target or feature.
        for (line, number) in source.text.lines().zip(1..) {
            let line = line.trim_start();
            if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
                let text = "use `#[expect(..., reason = \"...\")]`";
                findings.push(Finding::new(&source.path, number, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_one;

    #[test]
    fn words_out_of_place_are_found() {
        for (path, text) in [
            ("dataplane-ebpf/src/from_pod.rs", "fn f() -> i32 { TC_ACT_SHOT }"),
            ("dataplane-ebpf/src/from_pod.rs", "fn f() { ctx.data_end(); }"),
            ("dataplane-ebpf/src/from_pod.rs", "fn f() { info!(ctx, \"x\"); }"),
            ("dataplane-ebpf/src/from_pod.rs", "fn f() { aya_log_ebpf::warn!(ctx, \"x\"); }"),
            ("dataplane-agent/src/plan.rs", "use aya::Ebpf;"),
            ("cni-shim/src/add.rs", "use rtnetlink::new_connection;"),
            ("cni-shim/src/add.rs", "use anyhow::Result;"),
        ] {
            assert_eq!(check_one(in_their_place, path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn words_in_their_place_are_not() {
        for (path, text) in [
            ("dataplane-ebpf/src/drop.rs", "fn f() -> i32 { TC_ACT_SHOT }"),
            ("dataplane-ebpf/src/from_pod.rs", "// data_end is in packet.rs\nfn info() {}"),
            ("dataplane-agent/src/kernel/maps.rs", "use aya::Ebpf;"),
            ("tests/src/load.rs", "use aya::Ebpf;"),
            ("dataplane-agent/src/plan.rs", "const A: &str = \"aya\";"),
        ] {
            assert!(check_one(in_their_place, path, text).is_empty(), "{path}: {text}");
        }
    }

    #[test]
    fn allow_is_found() {
        assert_eq!(check_one(no_allow, "a.rs", "#[allow(dead_code)]\nfn f() {}").len(), 1);
        assert!(check_one(no_allow, "a.rs", "#[expect(dead_code)]\nfn f() {}").is_empty());
    }
}
