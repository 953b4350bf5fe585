//! The files of the project, read and parsed once.

use std::{collections::BTreeMap, fs, ops::RangeInclusive, path::Path};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{spanned::Spanned, visit::Visit};
use walkdir::WalkDir;

/// A Rust source.
pub(super) struct Source {
    /// Path from the root of the project.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) syntax: syn::File,
    tests: Vec<RangeInclusive<usize>>,
}

/// An identifier or a string of a source, with what follows it.
pub(super) struct Word {
    pub(super) text: String,
    pub(super) line: usize,
    pub(super) is_string: bool,
    /// The punctuation mark behind it, or a space.
    pub(super) next: char,
}

/// All files.
pub(super) struct Tree {
    pub(super) sources: Vec<Source>,
    /// Everything else that is checked, by path.
    pub(super) texts: BTreeMap<String, String>,
    /// Folders at the root.
    pub(super) folders: Vec<String>,
}

impl Tree {
    /// Reads all files.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { sources: Vec::new(), texts: BTreeMap::new(), folders: Vec::new() };
        let entries = WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !(name == "target" || name.starts_with('.'))
        });
        for entry in entries {
            let entry = entry?;
            let path = entry.path().strip_prefix(root)?.to_string_lossy().into_owned();
            let extension = entry.path().extension().unwrap_or_default();
            if entry.file_type().is_dir() {
                if entry.depth() == 1 {
                    tree.folders.push(path);
                }
            } else if ["rs", "toml", "md", "lock"].iter().any(|wanted| extension == *wanted) {
                let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
                tree.add(path, text)?;
            }
        }
        Ok(tree)
    }

    /// Makes a tree of these files.
    #[cfg(test)]
    pub(super) fn from_texts(files: &[(&str, &str)]) -> Self {
        let mut tree = Self { sources: Vec::new(), texts: BTreeMap::new(), folders: Vec::new() };
        for (path, text) in files {
            tree.add((*path).to_owned(), (*text).to_owned()).unwrap();
        }
        tree
    }

    fn add(&mut self, path: String, text: String) -> Result<()> {
        if path.ends_with(".rs") {
            let syntax = syn::parse_file(&text).with_context(|| format!("parse {path}"))?;
            let mut tests = TestItems::default();
            tests.visit_file(&syntax);
            self.sources.push(Source { path, text, syntax, tests: tests.lines });
        } else {
            self.texts.insert(path, text);
        }
        Ok(())
    }

    /// Returns the sources below a folder, or the one source with this path.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Source> {
        self.sources.iter().filter(move |source| source.path.starts_with(prefix))
    }
}

impl Source {
    /// Whether the whole file is tests.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Whether a line belongs to tests.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.is_test() || self.tests.iter().any(|range| range.contains(&line))
    }

    /// Returns all identifiers and strings, also those in macros, but none in comments.
    pub(super) fn words(&self) -> Vec<Word> {
        let mut words = Vec::new();
        collect(self.syntax.to_token_stream(), &mut words);
        words
    }
}

fn collect(tokens: TokenStream, words: &mut Vec<Word>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let next = match tokens.peek() {
            Some(TokenTree::Punct(mark)) => mark.as_char(),
            Some(TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Literal(_)) | None => ' ',
        };
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => collect(group.stream(), words),
            TokenTree::Ident(ident) => {
                words.push(Word { text: ident.to_string(), line, is_string: false, next });
            }
            TokenTree::Literal(literal) => {
                if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                    words.push(Word { text: text.value(), line, is_string: true, next });
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

/// Finds items that are compiled for tests only.
#[derive(Default)]
struct TestItems {
    lines: Vec<RangeInclusive<usize>>,
}

impl TestItems {
    /// Notes an item if it is compiled for tests only; returns whether it is.
    fn note(&mut self, attributes: &[syn::Attribute], item: &impl Spanned) -> bool {
        let is_test = attributes.iter().any(|attribute| {
            attribute.path().is_ident("test")
                || (attribute.path().is_ident("cfg")
                    && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test")))
        });
        if is_test {
            self.lines.push(item.span().start().line..=item.span().end().line);
        }
        is_test
    }
}

impl<'a> Visit<'a> for TestItems {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.note(&item.attrs, item);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.note(&item.attrs, item);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !self.note(&item.attrs, item) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.note(&item.attrs, item);
    }
}
