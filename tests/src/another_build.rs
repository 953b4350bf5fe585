//! An agent of another build: its programs do the same by other instructions, as after any change of a compiler.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _, SectionKind};

/// Where the machine is in the header of an ELF file, and BPF's number.
const MACHINE: Range<usize> = 18..20;
const EM_BPF: [u8; 2] = 247_u16.to_le_bytes();
/// Bytes of an instruction (RFC 9669, section 3).
const INSTRUCTION: usize = 8;
/// An instruction with a 64-bit number: it takes two places.
const LOAD_64: u8 = 0x18;
/// Move of a number, in 64 and in 32 bits (RFC 9669, section 4.1): the same where it is not negative.
const MOVE_64: u8 = 0xb7;
const MOVE_32: u8 = 0xb4;

/// Makes one from an agent that embeds the BPF object.
///
/// # Errors
/// When the object is not in it, or a file cannot be read or written.
pub fn make(agent: &Path, to: &Path) -> Result<()> {
    let mut program = fs::read(agent).with_context(|| agent.display().to_string())?;
    let at = embedded(&program).context("no BPF object in the agent")?;
    let object = program[at..].to_vec();
    let object = ElfFile64::<LittleEndian>::parse(&*object).context("read the BPF object")?;
    let mut changed = 0;
    for section in object.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (start, len) = section.file_range().context("a section without a place")?;
        let start = at + usize::try_from(start)?;
        changed += change(&mut program[start..start + usize::try_from(len)?]);
    }
    ensure!(changed > 0, "nothing in the BPF object that can be said in another way");
    fs::write(to, program).with_context(|| to.display().to_string())?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
}

fn embedded(program: &[u8]) -> Option<usize> {
    let is_object =
        |bytes: &[u8]| bytes.starts_with(b"\x7fELF") && bytes.get(MACHINE) == Some(&EM_BPF[..]);
    (0..program.len()).find(|&at| is_object(&program[at..]))
}

/// Says instructions in another way, and counts them.
fn change(instructions: &mut [u8]) -> usize {
    let mut changed = 0;
    let mut is_second = false;
    for instruction in instructions.chunks_exact_mut(INSTRUCTION) {
        let is_negative = instruction[INSTRUCTION - 1] & 0x80 != 0;
        if !is_second && instruction[0] == MOVE_64 && !is_negative {
            instruction[0] = MOVE_32;
            changed += 1;
        }
        is_second = !is_second && instruction[0] == LOAD_64;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_means_the_same() {
        let move_64 = |number: i32| {
            let mut bytes = vec![MOVE_64, 1, 0, 0];
            bytes.extend(number.to_le_bytes());
            bytes
        };
        let load = [LOAD_64, 1, 0, 0, 1, 0, 0, 0];
        let mut all = [move_64(7), move_64(-7), load.to_vec(), move_64(0), move_64(0)].concat();
        let before = all.clone();
        assert_eq!(change(&mut all), 2);
        let differ: Vec<usize> = all
            .iter()
            .zip(&before)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(differ, [0, 4 * INSTRUCTION]);
    }
}
