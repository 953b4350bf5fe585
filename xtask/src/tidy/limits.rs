//! Lengths of files and functions, and the form of modules.

use quote::ToTokens;
use syn::{spanned::Spanned, visit::Visit};

use super::{Finding, tree::Tree};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Files have at most 400 lines that are not tests.
pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    let long = |lines| format!("{lines} lines beside tests, at most {FILE_LINES_MAX}: split it");
    let sources = tree.sources.iter().filter(|source| !source.is_test());
    sources
        .map(|source| {
            let lines = source.text.lines().zip(1..).filter(|(_, n)| !source.is_test_line(*n));
            (source, lines.count())
        })
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(source, lines)| Finding::new(&source.path, 1, long(lines)))
        .collect()
}

/// Functions have at most 70 lines of code, as clippy counts them: without comments and empty lines. Where
/// clippy's own lint is expected, with a reason, that stands.
pub(super) fn function_length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let mut functions = Functions::default();
        functions.visit_file(&source.syntax);
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        for (name, first, last) in functions.found {
            let body = source.text.lines().skip(first).take(last.saturating_sub(first + 1));
            let lines = body.filter(is_code).count();
            if lines > FUNCTION_LINES_MAX {
                let text = format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}");
                findings.push(Finding::new(&source.path, first, text));
            }
        }
    }
    findings
}

/// Modules are `foo.rs` beside `foo/`, never `foo/mod.rs`.
pub(super) fn module_style(tree: &Tree) -> Vec<Finding> {
    let wrong = tree.sources.iter().filter(|source| source.path.ends_with("/mod.rs"));
    wrong.map(|s| Finding::new(&s.path, 1, "name it after its folder, beside that")).collect()
}

/// Names of functions, with first and last line of their bodies.
#[derive(Default)]
struct Functions {
    found: Vec<(String, usize, usize)>,
}

impl Functions {
    fn add(
        &mut self,
        attributes: &[syn::Attribute],
        signature: &syn::Signature,
        body: &syn::Block,
    ) {
        let is_expected = |attribute: &syn::Attribute| {
            attribute.path().is_ident("expect")
                && attribute.meta.to_token_stream().to_string().contains("too_many_lines")
        };
        if attributes.iter().any(is_expected) {
            return;
        }
        let (start, end) = (body.span().start().line, body.span().end().line);
        self.found.push((signature.ident.to_string(), start, end));
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.add(&function.attrs, &function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.add(&function.attrs, &function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_one;

    #[test]
    fn long_files_are_found_and_tests_do_not_count() {
        let long = "fn f() {}\n".repeat(401);
        assert_eq!(check_one(file_length, "a/src/b.rs", &long).len(), 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(check_one(file_length, "a/src/b.rs", &tests).is_empty());
        assert!(check_one(file_length, "tests/tests/net.rs", &long).is_empty());
    }

    #[test]
    fn long_functions_are_found_and_comments_do_not_count() {
        let function = |lines: &str| format!("fn f() {{\n{lines}}}\n");
        assert_eq!(check_one(function_length, "a.rs", &function(&"g();\n".repeat(71))).len(), 1);
        let fits = "g();\n".repeat(70) + "// why\n\n";
        assert!(check_one(function_length, "a.rs", &function(&fits)).is_empty());
        let expected = "#[expect(clippy::too_many_lines, reason = \"a table\")]\n";
        let table = expected.to_owned() + &function(&"g();\n".repeat(71));
        assert!(check_one(function_length, "a.rs", &table).is_empty());
        let method = format!("impl A {{ {} }}", function(&"g();\n".repeat(71)));
        assert_eq!(check_one(function_length, "a.rs", &method).len(), 1);
    }

    #[test]
    fn mod_rs_is_found() {
        assert_eq!(check_one(module_style, "a/src/b/mod.rs", "").len(), 1);
        assert!(check_one(module_style, "a/src/b.rs", "").is_empty());
    }
}
