//! What comments must say.

use super::{Finding, tree::Tree};

/// A remark on the verifier names the kernel that needs it, or nobody can ever remove it.
pub(super) fn verifier_names_a_kernel(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.under("dataplane-") {
        for (number, block) in comment_blocks(&source.text) {
            if block.to_lowercase().contains("verifier") && !has_version(&block) {
                let text =
                    "a remark on the verifier names the kernel (such as 6.6) and the symptom";
                findings.push(Finding::new(&source.path, number, text));
            }
        }
    }
    findings.retain(|finding| !finding.path.starts_with("dataplane-agent"));
    findings
}

/// What is left to do has a number that says where it is discussed: `TODO(#12)`.
pub(super) fn todo_has_a_reference(tree: &Tree) -> Vec<Finding> {
    let words = ["TODO", "FIXME", "XXX"];
    let mut findings = Vec::new();
    for source in &tree.sources {
        for (line, number) in source.text.lines().zip(1..) {
            let Some((code, comment)) = line.split_once("//") else { continue };
            let in_string = code.matches('"').count() % 2 == 1;
            let is_open = |word: &&str| {
                comment.split_once(*word).is_some_and(|(_, rest)| !rest.starts_with("(#"))
            };
            if let Some(word) = words.iter().find(|word| !in_string && is_open(word)) {
                let text = format!("`{word}` without a reference: write `{word}(#number)`");
                findings.push(Finding::new(&source.path, number, text));
            }
        }
    }
    findings
}

/// Returns runs of comment lines, with the number of their first line.
fn comment_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut follows = false;
    for (line, number) in text.lines().zip(1..) {
        let comment = line.trim_start().strip_prefix("//");
        let comment = comment.or_else(|| line.split_once(" // ").map(|(_, comment)| comment));
        match (comment, blocks.last_mut()) {
            (Some(comment), Some((_, block))) if follows => {
                block.push('\n');
                block.push_str(comment);
            }
            (Some(comment), _) => blocks.push((number, comment.to_owned())),
            (None, _) => {}
        }
        follows = comment.is_some();
    }
    blocks
}

/// Whether a text has something like `6.6`.
fn has_version(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.')).any(|word| {
        let mut numbers = word.trim_matches('.').split('.');
        let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
        is_number(numbers.next()) && is_number(numbers.next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_one;

    const FILE: &str = "dataplane-ebpf/src/packet.rs";

    #[test]
    fn remarks_on_the_verifier_name_a_kernel() {
        let vague = "// The verifier\n// refuses it.\nfn f() {}";
        assert_eq!(check_one(verifier_names_a_kernel, FILE, vague).len(), 1);
        let behind = "fn f() {} // for the verifier";
        assert_eq!(check_one(verifier_names_a_kernel, FILE, behind).len(), 1);
        let exact = "// The verifier\n// of 6.6 says \"invalid access\".\nfn f() {}";
        assert!(check_one(verifier_names_a_kernel, FILE, exact).is_empty());
    }

    #[test]
    fn open_ends_have_a_reference() {
        assert_eq!(check_one(todo_has_a_reference, FILE, "// TODO: later\n").len(), 1);
        assert_eq!(check_one(todo_has_a_reference, FILE, "fn f() {} // FIXME\n").len(), 1);
        assert!(check_one(todo_has_a_reference, FILE, "// TODO(#12): later\n").is_empty());
    }
}
