//! How tests are written.

use super::{
    Finding,
    tree::{Source, Tree, Word},
};

/// The one file each of harness and conformance kit that may wait: it polls until something holds, up to
/// a time limit.
const WAITS: [&str; 2] = ["tests/src/wait.rs", "tests/conformance/src/wait.rs"];
/// Has examples of what is wrong.
const EXAMPLES: &str = "xtask/src/tidy/testing.rs";
/// Reasons that no packet can provoke: the kernel itself must fail.
const NOT_PROVOKED: [&str; 2] = ["TunnelFailed", "RedirectFailed"];
const COUNTERS: &str = "dataplane-core/src/abi/counter.rs";

/// Tests do not sleep, are not skipped, and do not use fixed names of namespaces.
pub(super) fn no_habits(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let checked = |path: &str| !WAITS.contains(&path) && path != EXAMPLES;
    for source in tree.sources.iter().filter(|source| checked(&source.path)) {
        // On tokio's paused clock a sleep takes no time and always ends after what it waits for.
        let is_paused = source.text.contains("start_paused = true");
        let in_harness = source.path.starts_with("tests/");
        let words = source.words();
        let pairs = words.iter().zip(words.iter().skip(1).map(Some).chain([None]));
        for (word, behind) in pairs {
            let is_call = !word.is_string && word.next == ' ';
            let text = if word.text == "sleep" && is_call && !is_paused {
                "do not let time pass: wait for what you need to see (tests/src/wait.rs)"
            } else if is_fixed_namespace(word, behind) {
                "a namespace of a fixed name: two runs would meet in it"
            } else {
                continue;
            };
            if in_harness || source.is_test_line(word.line) {
                findings.push(Finding::new(&source.path, word.line, text));
            }
        }
        for (line, number) in source.text.lines().zip(1..) {
            if line.trim_start().starts_with("#[ignore") {
                findings.push(Finding::new(&source.path, number, "a skipped test is no test"));
            }
        }
    }
    findings
}

/// Every reason for a drop occurs in a test of the loaded programs.
pub(super) fn every_drop_is_tested(tree: &Tree) -> Vec<Finding> {
    let Some(counters) = tree.under(COUNTERS).next() else { return Vec::new() };
    let tests: Vec<String> =
        tree.under("tests/tests/").flat_map(Source::words).map(|word| word.text).collect();
    drop_reasons(&counters.text)
        .into_iter()
        .filter(|(_, variant, _)| !NOT_PROVOKED.contains(&variant.as_str()))
        .filter(|(_, variant, name)| !tests.iter().any(|word| word == variant || word == name))
        .map(|(line, variant, _)| {
            let text = format!("no test under tests/tests/ expects `{variant}`");
            Finding::new(COUNTERS, line, text)
        })
        .collect()
}

/// Reads lines such as `Malformed = 32, "malformed", "...";` behind the name of the enum.
fn drop_reasons(text: &str) -> Vec<(usize, String, String)> {
    let lines = text.lines().zip(1..).skip_while(|(line, _)| line.trim() != "DropReason {");
    lines
        .skip(1)
        .take_while(|(line, _)| line.trim() != "}")
        .filter_map(|(line, number)| {
            let (variant, rest) = line.trim().split_once(" = ")?;
            Some((number, variant.to_owned(), rest.split('"').nth(1)?.to_owned()))
        })
        .collect()
}

/// Whether this is `"ip netns add name"`, or `"add", "name"` as arguments.
fn is_fixed_namespace(word: &Word, behind: Option<&Word>) -> bool {
    if word.is_string && word.text == "add" {
        // The arguments of other commands begin with the kind of thing: `add dev`, `add veth0`.
        return behind.is_some_and(|name| {
            name.is_string && ["pwt-", "pwd-", "test-"].iter().any(|p| name.text.starts_with(p))
        });
    }
    let Some((_, name)) = word.text.split_once("netns add ") else { return false };
    word.is_string && !name.trim_start().starts_with(['{', '$'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_one;

    const NET: &str = "tests/tests/net.rs";

    #[test]
    fn bad_habits_are_found() {
        for text in [
            "fn f() { std::thread::sleep(SECOND); }",
            "async fn f() { tokio::time::sleep(SECOND).await; }",
            "#[test]\n#[ignore = \"later\"]\nfn f() {}",
            "fn f() { run(\"ip netns add node1\"); }",
            "fn f() { run([\"netns\", \"add\", \"test-node1\"]); }",
        ] {
            assert_eq!(check_one(no_habits, NET, text).len(), 1, "{text}");
        }
        let unit = "#[cfg(test)]\nmod tests {\nfn f() { sleep(SECOND); }\n}";
        assert_eq!(check_one(no_habits, "cni-shim/src/add.rs", unit).len(), 1);
    }

    #[test]
    fn good_habits_are_not() {
        for (path, text) in [
            (WAITS[0], "fn f() { thread::sleep(TICK); }"),
            ("dataplane-agent/src/run.rs", "fn f() { sleep(MINUTE); }"),
            (NET, "fn f() { run(format!(\"ip netns add {name}\")); }"),
            (NET, "fn f() { run([\"netns\", \"add\", &name]); }"),
            (NET, "#[tokio::test(start_paused = true)]\nasync fn f() { sleep(HOUR).await; }"),
            (NET, "/// Never calls `sleep(SECOND)`.\nfn f() { run([\"sleep\", \"60\"]); }"),
        ] {
            assert!(check_one(no_habits, path, text).is_empty(), "{path}: {text}");
        }
    }

    #[test]
    fn untested_reasons_are_found() {
        let counters = "counters! {\n DropReason {\n A = 32, \"a_b\", \"x\";\n \
                        C = 33, \"c\", \"x\";\n }\n}\n";
        let tests = |text| {
            let files = [(COUNTERS, counters), ("tests/tests/prog/from_pod.rs", text)];
            every_drop_is_tested(&Tree::from_texts(&files))
        };
        assert_eq!(tests("").len(), 2);
        assert_eq!(tests("fn f() { expect(DropReason::A); }").len(), 1);
        assert!(tests("fn f() { expect(\"a_b\", DropReason::C); }").is_empty());
    }
}
