//! Documents and manifests.

use super::{Finding, tree::Tree};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const ARCHITECTURE_LINES_MAX: usize = 300;
const MANIFEST: &str = "Cargo.toml";

/// The map of the code names every folder and stays short; every dependency has a reason.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = architecture(tree);
    for (path, text) in &tree.texts {
        let is_manifest = path == MANIFEST || path.ends_with("/Cargo.toml");
        if is_manifest {
            findings.extend(reasons(path, text));
        }
    }
    findings
}

fn architecture(tree: &Tree) -> Vec<Finding> {
    let text = tree.texts.get(ARCHITECTURE).map(String::as_str).unwrap_or_default();
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines >= ARCHITECTURE_LINES_MAX {
        let text = format!("{lines} lines, at most {ARCHITECTURE_LINES_MAX}");
        findings.push(Finding::new(ARCHITECTURE, lines, text));
    }
    for folder in &tree.folders {
        if !text.contains(&format!("`{folder}/`")) {
            let text = format!("the map of the code lacks `{folder}/`");
            findings.push(Finding::new(ARCHITECTURE, 1, text));
        }
    }
    findings
}

/// Finds dependencies without a comment that says why; those taken from the workspace have theirs there.
fn reasons(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    let mut before = "";
    for (line, number) in text.lines().zip(1..) {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        }
        let is_dependency = in_dependencies && line.contains(" = ") && !line.starts_with('#');
        let is_foreign = !line.contains("path = ") && !line.contains("workspace = true");
        let has_reason = line.contains(" # ") || before.starts_with('#');
        if is_dependency && is_foreign && !has_reason && !line.starts_with(' ') {
            findings.push(Finding::new(path, number, "a dependency without a reason (`# why`)"));
        }
        before = line;
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_one;

    fn with_folder(architecture: &str) -> Vec<Finding> {
        let mut tree = Tree::from_texts(&[(ARCHITECTURE, architecture)]);
        tree.folders.push("deploy".to_owned());
        check(&tree)
    }

    #[test]
    fn folders_without_a_word_are_found() {
        assert_eq!(with_folder("# Map\n").len(), 1);
        assert!(with_folder("- `deploy/`: manifests\n").is_empty());
    }

    #[test]
    fn a_long_map_is_found() {
        assert_eq!(check_one(check, ARCHITECTURE, &"line\n".repeat(300)).len(), 1);
        assert!(check_one(check, ARCHITECTURE, &"line\n".repeat(299)).is_empty());
    }

    #[test]
    fn dependencies_without_a_reason_are_found() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nanyhow = \"1\"\n\
                        own = { path = \"../own\" }\nserde.workspace = true\n";
        assert_eq!(check_one(check, "a/Cargo.toml", manifest).len(), 1);
        let with_reason = manifest.replace("\"1\"", "\"1\" # errors");
        assert!(check_one(check, "a/Cargo.toml", &with_reason).is_empty());
        let above = manifest.replace("anyhow", "# Errors.\nanyhow");
        assert!(check_one(check, "a/Cargo.toml", &above).is_empty());
    }
}
