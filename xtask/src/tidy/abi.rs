//! The types that cross between the programs and user space.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use sha2::{Digest, Sha256};
use syn::visit::Visit;

use super::{Finding, tree::Tree};

const FOLDER: &str = "dataplane-core/src/abi";
/// Where an address lies in `pw_near`: programs and user space must find the same.
const PLACES: [&str; 2] = ["dataplane-core/src/near.rs", "dataplane-core/src/hash.rs"];
/// Version and hash of the layouts and places, as `--bless` recorded them.
const LOCK: &str = "dataplane-core/src/abi.lock";
/// Bytes that the kernel keeps of a name.
const NAME_MAX: usize = 15;

/// `repr(C)` types that only decide where a value lies on the stack of a program.
const ON_THE_STACK: [&str; 3] =
    ["dataplane-core/src/ip.rs", "dataplane-ebpf/src/maps.rs", "dataplane-ebpf/src/stack.rs"];

/// `repr(C)` types stand in one folder.
pub(super) fn layouts_in_one_place(tree: &Tree) -> Vec<Finding> {
    let in_place = |path: &str| path.starts_with(FOLDER) || ON_THE_STACK.contains(&path);
    let elsewhere = tree.sources.iter().filter(|source| !in_place(&source.path));
    elsewhere
        .flat_map(|source| {
            layouts(&source.syntax).into_iter().map(|layout| {
                let text = format!("repr(C) type `{}` outside {FOLDER}", layout.ident);
                Finding::new(&source.path, layout.ident.span().start().line, text)
            })
        })
        .collect()
}

/// Each layout has its size asserted beside it.
pub(super) fn layouts_are_asserted(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.under(FOLDER) {
        for layout in layouts(&source.syntax) {
            let assert = format!("assert!(size_of::<{}>() == ", layout.ident);
            let is_asserted =
                source.text.lines().any(|l| l.starts_with("const _: ()") && l.contains(&assert));
            if !is_asserted {
                let text = format!("`{}` lacks `const _: () = {assert}...`", layout.ident);
                let line = layout.ident.span().start().line;
                findings.push(Finding::new(&source.path, line, text));
            }
        }
    }
    findings
}

/// No field of a layout has a type some of whose bit patterns are invalid, or whose size varies.
pub(super) fn layouts_are_plain(tree: &Tree) -> Vec<Finding> {
    const REFUSED: [&str; 5] = ["bool", "char", "isize", "usize", "Option"];
    let mut findings = Vec::new();
    for source in tree.under(FOLDER) {
        for layout in layouts(&source.syntax) {
            for field in &layout.fields {
                let mut words = Vec::new();
                idents(field.ty.to_token_stream(), &mut words);
                if let Some(refused) = words.iter().find(|w| REFUSED.contains(&w.as_str())) {
                    let text = format!("a map's value can hold any bytes, `{refused}` cannot");
                    let line = layout.ident.span().start().line;
                    findings.push(Finding::new(&source.path, line, text));
                }
            }
        }
    }
    findings
}

/// Names of maps and programs fit into what the kernel keeps of them.
pub(super) fn names_fit(tree: &Tree) -> Vec<Finding> {
    let sources = tree.under("dataplane-core/").chain(tree.under("dataplane-ebpf/"));
    sources
        .flat_map(|source| source.words().into_iter().map(move |word| (source, word)))
        .filter(|(_, word)| word.text.starts_with("pw_") && word.text.len() > NAME_MAX)
        .filter(|(_, word)| !word.text.contains(' '))
        .map(|(source, word)| {
            let text = format!("`{}`: the kernel keeps {NAME_MAX} bytes of a name", word.text);
            Finding::new(&source.path, word.line, text)
        })
        .collect()
}

/// `ABI_VERSION` rises with every change of the layouts.
pub(super) fn version_rises(tree: &Tree) -> Vec<Finding> {
    let Some(current) = Lock::of(tree) else { return Vec::new() };
    let Some(recorded) = tree.texts.get(LOCK).and_then(|text| Lock::parse(text)) else {
        return vec![Finding::new(LOCK, 1, "missing: `cargo xtask tidy --bless` writes it")];
    };
    if current == recorded {
        return Vec::new();
    }
    let text = if current.version == recorded.version {
        "abi/, near.rs or hash.rs changed and ABI_VERSION did not: raise it, then run `cargo xtask tidy --bless`; only \
         if neither a layout nor a meaning changed, bless without raising it"
    } else if current.version < recorded.version {
        "ABI_VERSION fell: it only rises"
    } else {
        "ABI_VERSION rose: record it with `cargo xtask tidy --bless`"
    };
    vec![Finding::new("dataplane-core/src/abi.rs", 1, text)]
}

/// Records the layouts as they are.
pub(super) fn bless(tree: &Tree, root: &Path) -> Result<()> {
    let lock = Lock::of(tree).context("no ABI_VERSION in dataplane-core/src/abi.rs")?;
    fs::write(root.join(LOCK), lock.to_text()).with_context(|| format!("write {LOCK}"))?;
    println!("recorded version {} of the layouts", lock.version);
    Ok(())
}

/// Version and hash of the layouts.
#[derive(PartialEq, Eq, Debug)]
struct Lock {
    version: u32,
    hash: String,
}

impl Lock {
    /// Computes it. Comments and tests do not count.
    fn of(tree: &Tree) -> Option<Self> {
        let mut version = None;
        let mut code = String::new();
        let of_places = tree.sources.iter().filter(|source| PLACES.contains(&source.path.as_str()));
        for source in tree.under(FOLDER).chain(of_places) {
            version = version.or_else(|| read_version(&source.syntax));
            for item in &source.syntax.items {
                let line = syn::spanned::Spanned::span(item).start().line;
                if !source.is_test_line(line) {
                    plain(item.to_token_stream(), &mut code);
                }
            }
        }
        let hash = Sha256::digest(code.as_bytes());
        let hash = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { version: version?, hash })
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find(|line| !line.starts_with('#'))?;
        let (version, hash) = line.split_once(' ')?;
        Some(Self { version: version.parse().ok()?, hash: hash.to_owned() })
    }

    fn to_text(&self) -> String {
        format!(
            "# ABI_VERSION, and the hash of abi/ and of the places in pw_near that has it: written by `cargo xtask tidy --bless`.\n\
             {} {}\n",
            self.version, self.hash
        )
    }
}

fn read_version(syntax: &syn::File) -> Option<u32> {
    syntax.items.iter().find_map(|item| {
        let syn::Item::Const(item) = item else { return None };
        let is_version = item.ident == "ABI_VERSION";
        is_version.then(|| item.expr.to_token_stream().to_string().parse().ok())?
    })
}

/// Appends tokens without documentation.
fn plain(tokens: TokenStream, code: &mut String) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if is_hash(&token)
            && let Some(TokenTree::Group(group)) = tokens.peek()
            && group.stream().into_iter().next().is_some_and(|t| t.to_string() == "doc")
        {
            tokens.next();
            continue;
        }
        if let TokenTree::Group(group) = &token {
            let (open, close) = match group.delimiter() {
                Delimiter::Parenthesis => ("( ", ") "),
                Delimiter::Brace => ("{ ", "} "),
                Delimiter::Bracket => ("[ ", "] "),
                Delimiter::None => ("", ""),
            };
            code.push_str(open);
            plain(group.stream(), code);
            code.push_str(close);
        } else {
            code.push_str(&token.to_string());
            code.push(' ');
        }
    }
}

fn is_hash(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(mark) if mark.as_char() == '#')
}

fn idents(tokens: TokenStream, words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => idents(group.stream(), words),
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Returns all `repr(C)` structs.
fn layouts(syntax: &syn::File) -> Vec<&syn::ItemStruct> {
    let mut layouts = Layouts::default();
    layouts.visit_file(syntax);
    layouts.found
}

#[derive(Default)]
struct Layouts<'a> {
    found: Vec<&'a syn::ItemStruct>,
}

impl<'a> Visit<'a> for Layouts<'a> {
    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        let is_c = |attribute: &syn::Attribute| {
            let mut words = Vec::new();
            idents(attribute.meta.to_token_stream(), &mut words);
            words.first().is_some_and(|w| w == "repr") && words.iter().any(|w| w == "C")
        };
        if item.attrs.iter().any(is_c) {
            self.found.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_one;

    const POD: &str = "#[repr(C, align(8))]\npub struct Pod { a: u64 }\n";
    const ASSERT: &str = "const _: () = assert!(size_of::<Pod>() == 8);\n";
    const FILE: &str = "dataplane-core/src/abi/pod.rs";

    #[test]
    fn layouts_elsewhere_are_found() {
        assert_eq!(check_one(layouts_in_one_place, "dataplane-ebpf/src/packet.rs", POD).len(), 1);
        assert_eq!(check_one(layouts_in_one_place, "dataplane-agent/src/model.rs", POD).len(), 1);
        assert!(check_one(layouts_in_one_place, FILE, POD).is_empty());
    }

    #[test]
    fn layouts_without_assert_are_found() {
        assert_eq!(check_one(layouts_are_asserted, FILE, POD).len(), 1);
        assert!(check_one(layouts_are_asserted, FILE, &format!("{POD}{ASSERT}")).is_empty());
    }

    #[test]
    fn fields_with_invalid_patterns_are_found() {
        for field in ["bool", "usize", "[Option<u8>; 4]"] {
            let text = format!("#[repr(C)]\nstruct A {{ a: {field} }}");
            assert_eq!(check_one(layouts_are_plain, FILE, &text).len(), 1, "{field}");
        }
        assert!(check_one(layouts_are_plain, FILE, POD).is_empty());
    }

    #[test]
    fn long_names_are_found() {
        let text = "const A: &str = \"pw_from_the_tunnel\";";
        assert_eq!(check_one(names_fit, FILE, text).len(), 1);
        assert!(check_one(names_fit, FILE, "const A: &str = \"pw_from_tunnel\";").is_empty());
    }

    #[test]
    fn a_changed_layout_needs_a_new_version() {
        let abi = |version| format!("/// Doc.\npub const ABI_VERSION: u32 = {version};");
        let lock = |version: u32, pod: &str| {
            let text = abi(version);
            let files = [("dataplane-core/src/abi.rs", text.as_str()), (FILE, pod)];
            Lock::of(&Tree::from_texts(&files)).unwrap()
        };
        let findings = |version: u32, pod: &str, recorded: &Lock| {
            let text = abi(version);
            let lock = recorded.to_text();
            let files =
                [("dataplane-core/src/abi.rs", text.as_str()), (FILE, pod), (LOCK, lock.as_str())];
            version_rises(&Tree::from_texts(&files))
        };
        let recorded = lock(1, POD);
        assert!(findings(1, POD, &recorded).is_empty());
        assert!(findings(1, &format!("/// More words.\n{POD}"), &recorded).is_empty());
        let places =
            [("dataplane-core/src/abi.rs", abi(1)), (PLACES[0], "const A: u32 = 1;".into())];
        let places = places.each_ref().map(|(path, text)| (*path, text.as_str()));
        assert_ne!(Lock::of(&Tree::from_texts(&places[..1])), Lock::of(&Tree::from_texts(&places)));
        let changed = POD.replace("u64", "i64");
        assert!(findings(1, &changed, &recorded)[0].text.contains("did not"));
        assert!(findings(2, &changed, &recorded)[0].text.contains("rose"));
        assert!(findings(1, POD, &lock(2, POD))[0].text.contains("fell"));
        assert_eq!(check_one(version_rises, "dataplane-core/src/abi.rs", &abi(1)).len(), 1);
    }
}
