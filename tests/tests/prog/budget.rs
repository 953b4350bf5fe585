//! How large each program is, beside what is recorded of it in `dataplane-ebpf/budget.toml`.
//!
//! Its instructions are those that the kernel is given: the program with all subprograms that it calls, before any
//! kernel rewrites them. They are the same everywhere. How many the verifier visits depends on the kernel, too.
//!
//! A program that has become much smaller must have its budget lowered: the next change could take back unseen what
//! this one has won.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Write as _};

use aya_obj::Object;

use super::fixture::{Fixture, object};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane-ebpf/budget.toml");
const HEAD: &str = "\
# How large each BPF program is: `cargo xtask test` fails when one becomes more than 10 % larger, or smaller, than it
# is here. `cargo xtask test --bless` writes what is.
#
# instructions: of the program with its subprograms, in the object
# visited: by the verifier of this kernel, each as often as it comes by
";
/// Set by `cargo xtask test --bless`.
const BLESS: &str = "PODWIRE_BLESS";
/// How far a program may be from its budget.
const PERCENT: u64 = 10;
/// On another kernel the verifier may visit so many times as many: no more than a doubling can be told from what
/// the kernels themselves differ by.
const TIMES_ELSEWHERE: u64 = 2;

/// How large a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    instructions: u64,
    visited: u64,
}

/// All programs by name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sizes {
    /// The kernel whose verifier it was: series and machine.
    kernel: String,
    programs: BTreeMap<String, Size>,
}

#[test]
fn programs_keep_to_their_budgets() {
    let found = Sizes::measure();
    if std::env::var_os(BLESS).is_some() {
        fs::write(FILE, found.to_text()).unwrap_or_else(|error| panic!("write {FILE}: {error}"));
        return;
    }
    let text = fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}"));
    let recorded = Sizes::parse(&text);
    if found.kernel != recorded.kernel {
        // Past the test runner, which shows nothing of tests that pass.
        let _ = writeln!(
            io::stderr(),
            "note: what the verifier visits is recorded for kernel {}; on this one, {}, a program fails only when it \
             visits more than {TIMES_ELSEWHERE} times as many instructions",
            recorded.kernel,
            found.kernel
        );
    }
    let complaints = found.compare(&recorded);
    assert!(
        complaints.is_empty(),
        "{}\nIf that is as it shall be, say why in the change and run `cargo xtask test --bless`, which records all \
         programs as they are in dataplane-ebpf/budget.toml.",
        complaints.join("\n")
    );
}

impl Sizes {
    /// Of the object, as it is and as this kernel's verifier sees it.
    fn measure() -> Self {
        let fixture = Fixture::new();
        let programs = given_to_the_kernel().into_iter().map(|(name, instructions)| {
            let program = fixture.ebpf().program(&name).expect("a program of the object");
            let info = program.info().expect("what the kernel says of the program");
            let visited = info.verified_instruction_count().expect("kernel 5.16 or newer");
            (name, Size { instructions, visited: visited.into() })
        });
        Self { kernel: kernel(), programs: programs.collect() }
    }

    fn parse(text: &str) -> Self {
        let table: toml::Table = text.parse().expect("budget.toml is TOML");
        let number = |value: &toml::Value, key: &str| {
            let number = value.get(key).and_then(toml::Value::as_integer).expect(key);
            u64::try_from(number).expect(key)
        };
        let programs = table.iter().filter(|(_, value)| value.is_table()).map(|(name, value)| {
            let size = Size {
                instructions: number(value, "instructions"),
                visited: number(value, "visited"),
            };
            (name.clone(), size)
        });
        let kernel = table.get("kernel").and_then(toml::Value::as_str).expect("kernel");
        Self { kernel: kernel.to_owned(), programs: programs.collect() }
    }

    fn to_text(&self) -> String {
        let program = |(name, size): (&String, &Size)| {
            let Size { instructions, visited } = size;
            format!("\n[{name}]\ninstructions = {instructions}\nvisited = {visited}\n")
        };
        let programs: String = self.programs.iter().map(program).collect();
        format!("{HEAD}kernel = \"{}\"\n{programs}", self.kernel)
    }

    /// What is wrong, one line each.
    fn compare(&self, recorded: &Self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, found) in &self.programs {
            let Some(budget) = recorded.programs.get(name) else {
                complaints.push(format!("{name}: no budget is recorded"));
                continue;
            };
            let what = "instructions";
            complaints.extend(beyond(name, what, found.instructions, budget.instructions));
            let (visited, budget) = (found.visited, budget.visited);
            if self.kernel == recorded.kernel {
                complaints.extend(beyond(name, "instructions visited", visited, budget));
            } else if visited > TIMES_ELSEWHERE * budget {
                complaints.push(format!(
                    "{name}: {visited} instructions visited on kernel {}, {budget} recorded for kernel {}: more than \
                     {TIMES_ELSEWHERE} times as many",
                    self.kernel, recorded.kernel
                ));
            }
        }
        let gone = recorded.programs.keys().filter(|name| !self.programs.contains_key(*name));
        complaints.extend(gone.map(|name| format!("{name}: has a budget and is no program")));
        complaints
    }
}

/// What is wrong with a figure, if anything is.
fn beyond(name: &str, what: &str, found: u64, budget: u64) -> Option<String> {
    let change = (found as f64 / budget as f64 - 1.0) * 100.0;
    let advice = if found * 100 > budget * (100 + PERCENT) {
        "make it smaller, or raise its budget"
    } else if found * 100 < budget * (100 - PERCENT) {
        "well done, and now lower its budget, that it stays so"
    } else {
        return None;
    };
    Some(format!("{name}: {found} {what}, {budget} recorded ({change:+.1} %): {advice}"))
}

/// Instructions of each program with its subprograms, put together as at loading.
fn given_to_the_kernel() -> BTreeMap<String, u64> {
    let mut object = Object::parse(&object()).expect("an object");
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&text).expect("calls of subprograms");
    let programs = object.programs.iter().map(|(name, program)| {
        let function = object.functions.get(&program.function_key()).expect("its function");
        (name.clone(), function.instructions.len() as u64)
    });
    programs.collect()
}

/// `6.18 x86_64`: patches of a series leave the verifier's work as it is, but for mistakes that they mend.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let series: Vec<&str> = release.trim().split('.').take(2).collect();
    format!("{} {}", series.join("."), std::env::consts::ARCH)
}

fn sizes(kernel: &str, instructions: u64, visited: u64) -> Sizes {
    let programs = [("pw_to_pod".to_owned(), Size { instructions, visited })].into();
    Sizes { kernel: kernel.to_owned(), programs }
}

#[test]
fn a_tenth_more_or_less_is_noticed() {
    let recorded = sizes("6.18 x86_64", 1000, 5000);
    let complaints = |instructions, visited| {
        sizes("6.18 x86_64", instructions, visited).compare(&recorded).join("\n")
    };
    assert_eq!(complaints(1100, 5500), "");
    assert_eq!(complaints(900, 4500), "");
    let raise = "pw_to_pod: 1101 instructions, 1000 recorded (+10.1 %): make it smaller, or raise its budget";
    assert_eq!(complaints(1101, 5000), raise);
    assert!(complaints(1000, 5501).contains("5501 instructions visited, 5000 recorded (+10.0 %)"));
    assert!(complaints(899, 5000).contains("lower its budget"));
    assert!(complaints(1000, 4499).contains("lower its budget"));
}

#[test]
fn another_kernel_may_visit_twice_as_many_of_the_same() {
    let recorded = sizes("6.18 x86_64", 1000, 5000);
    let complaints = |instructions, visited| {
        sizes("6.6 x86_64", instructions, visited).compare(&recorded).join("\n")
    };
    assert_eq!(complaints(1000, 10_000), "");
    assert_eq!(complaints(1000, 100), "");
    assert!(complaints(1000, 10_001).contains("more than 2 times as many"));
    assert!(complaints(1101, 5000).contains("raise its budget"));
}

#[test]
fn programs_and_budgets_are_the_same_ones() {
    let none = Sizes { kernel: "6.18 x86_64".to_owned(), programs: BTreeMap::new() };
    let one = sizes("6.18 x86_64", 1000, 5000);
    assert_eq!(one.compare(&none), ["pw_to_pod: no budget is recorded"]);
    assert_eq!(none.compare(&one), ["pw_to_pod: has a budget and is no program"]);
}

#[test]
fn what_is_written_can_be_read() {
    let sizes = sizes("6.18 x86_64", 1000, 5000);
    assert_eq!(Sizes::parse(&sizes.to_text()), sizes);
}
