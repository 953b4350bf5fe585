//! What is in a BPF object: programs, subprograms and their sizes.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// Bytes of one instruction.
const INSTRUCTION: u64 = 8;
/// Bytes that the kernel keeps of a name.
const NAME_MAX: usize = 15;

/// One function of the object.
struct Function {
    name: String,
    section: String,
    instructions: u64,
}

impl Function {
    /// Subprograms are called by programs; the kernel runs programs.
    fn is_program(&self) -> bool {
        self.section != ".text"
    }
}

/// What is in an object.
pub(super) struct Report {
    path: String,
    bytes: u64,
    functions: Vec<Function>,
}

impl Report {
    /// Reads an object.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let data = fs::read(path).with_context(|| path.display().to_string())?;
        let file = object::File::parse(&*data).context("not an object file")?;
        let mut functions = Vec::new();
        for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() > 0) {
            let Some(section) = symbol.section_index() else { continue };
            functions.push(Function {
                name: readable(symbol.name()?),
                section: file.section_by_index(section)?.name()?.to_owned(),
                instructions: symbol.size() / INSTRUCTION,
            });
        }
        functions.sort_by(|a, b| (!a.is_program(), &a.name).cmp(&(!b.is_program(), &b.name)));
        Ok(Self { path: path.display().to_string(), bytes: u64::try_from(data.len())?, functions })
    }
}

/// Returns the last two parts of a path, without generic arguments and hash.
fn readable(symbol: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    let name = name.split("::<").next().unwrap_or_default();
    let mut parts: Vec<&str> = name.rsplit("::").take(2).collect();
    parts.reverse();
    parts.join("::")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} bytes", self.path, self.bytes)?;
        let width = self.functions.iter().map(|f| f.name.len()).max().unwrap_or(0).max(10);
        writeln!(f, "  {:width$}  {:<10}  {:>12}", "function", "kind", "instructions")?;
        for function in &self.functions {
            let kind = if function.is_program() { "program" } else { "subprogram" };
            writeln!(f, "  {:width$}  {kind:<10}  {:>12}", function.name, function.instructions)?;
        }
        let programs = self.functions.iter().filter(|function| function.is_program()).count();
        let total: u64 = self.functions.iter().map(|function| function.instructions).sum();
        writeln!(f, "  {programs} programs, {total} instructions")
    }
}

/// Refuses an object that the agent could not load, or that bpftool could not show.
pub(super) fn check(path: &Path) -> Result<()> {
    let data = fs::read(path).with_context(|| path.display().to_string())?;
    let file = object::File::parse(&*data).context("not an object file")?;
    for section in [".BTF", ".BTF.ext", ".maps", "license"] {
        ensure!(
            file.section_by_name(section).is_some(),
            "{} has no section `{section}`",
            path.display()
        );
    }
    let license = file.section_by_name("license").context("license")?.data()?.to_vec();
    let license = String::from_utf8_lossy(&license).trim_end_matches('\0').to_owned();
    // As in the kernel's license_is_gpl_compatible().
    const COMPATIBLE: [&str; 6] = [
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    ];
    ensure!(COMPATIBLE.contains(&license.as_str()), "licence `{license}` is not GPL-compatible");
    let report = Report::read(path)?;
    if let Some(long) = report.functions.iter().find(|f| f.is_program() && f.name.len() > NAME_MAX)
    {
        bail!("the kernel keeps {NAME_MAX} bytes of a program's name: `{}` is longer", long.name);
    }
    ensure!(report.functions.iter().any(Function::is_program), "{} has no program", report.path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_puts_programs_first_and_adds_up() {
        let function = |name: &str, section: &str, instructions| Function {
            name: name.to_owned(),
            section: section.to_owned(),
            instructions,
        };
        let report = Report {
            path: "podwire.o".to_owned(),
            bytes: 100,
            functions: vec![
                function("pw_to_pod", "classifier", 10),
                function("memcpy", ".text", 5),
            ],
        };
        let text = report.to_string();
        assert!(text.contains("1 programs, 15 instructions"), "{text}");
        assert!(text.contains("memcpy      subprogram             5"), "{text}");
    }

    #[test]
    fn names_of_subprograms_are_readable() {
        assert_eq!(readable("_RNvNtCs3PqGTq26rqj_7podwire4drop4drop"), "drop::drop");
        assert_eq!(readable("memcpy"), "memcpy");
    }

    #[test]
    fn a_file_that_is_no_object_is_refused() {
        let path = std::env::temp_dir().join(format!("podwire-object-{}", std::process::id()));
        fs::write(&path, "no object").unwrap();
        assert!(check(&path).is_err());
        fs::remove_file(path).unwrap();
    }
}
