//! A service that spins: its program is changed in memory while it runs.

use std::{fs, path::Path};

use object::{
    Endianness,
    elf::{FileHeader64, PF_X, PT_LOAD},
    read::elf::{ElfFile, ProgramHeader},
};
use partita::{
    fail,
    failure::{Failure, Result},
};

use crate::memory::{self, Memory};

/// `svc #0`.
const SVC: u32 = 0xd400_0001;
/// `mov x7, #-7`, `#-3` and `#-2`: the numbers of `seL4_Recv`, `NBSendRecv` and `ReplyRecv`, a few instructions before it.
const RECV: [u32; 3] = [0x9280_00c7, 0x9280_0047, 0x9280_0027];
const NEAR: usize = 8;
/// `b .`
const SPIN: u32 = 0x1400_0000;
const PAGE: usize = memory::PAGE as usize;

/// A PD that spins as soon as it has received anything: `b .` is behind the system call.
#[derive(Debug)]
pub struct Spin {
    /// Physical addresses, and what was there.
    changed: Vec<(u64, [u8; 4])>,
}

impl Spin {
    /// Lets the PDs that run `program` spin. Its pages are looked for in all memory; one that lies there more than once (as
    /// what the loader has left behind) is changed everywhere.
    ///
    /// # Errors
    /// The program has no receive, or a page that has one is not in memory.
    pub fn begin(memory: &mut Memory, program: &Path) -> Result<Self> {
        let file = fs::read(program).map_err(|error| Failure::file("read", program, &error))?;
        let code = code(&file);
        let wanted = pages(&code);
        if wanted.is_empty() {
            fail!("no receive is found in {}", program.display());
        }
        memory.still(|machine| {
            let mut found = vec![0; wanted.len()];
            let mut changed = Vec::new();
            machine.pages(|paddr, page| {
                for ((wanted, behind), found) in wanted.iter().zip(&mut found) {
                    if *wanted == page {
                        *found += 1;
                        changed.extend(behind.iter().map(|at| (paddr + *at as u64, instruction(page, *at))));
                    }
                }
            })?;
            if found.contains(&0) {
                fail!("pages of {} are not in memory: found {found:?} times", program.display());
            }
            changed.iter().try_for_each(|(at, _)| machine.write(*at, &SPIN.to_le_bytes()))?;
            Ok(Self { changed })
        })
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn end(self, memory: &mut Memory) -> Result {
        memory.still(|machine| self.changed.iter().try_for_each(|(at, before)| machine.write(*at, before)))
    }
}

/// A program's code as it lies in memory: whole pages, with zeroes where a segment does not fill its own.
fn code(file: &[u8]) -> Vec<u8> {
    let Ok(elf) = ElfFile::<FileHeader64<Endianness>>::parse(file) else { return Vec::new() };
    let endian = elf.endian();
    let mut code = Vec::new();
    for segment in elf.elf_program_headers() {
        if segment.p_type(endian) != PT_LOAD || segment.p_flags(endian) & PF_X == 0 {
            continue;
        }
        code.resize(code.len() + segment.p_vaddr(endian) as usize % PAGE, 0);
        code.extend_from_slice(segment.data(endian, file).unwrap_or_default());
        code.resize(code.len().next_multiple_of(PAGE), 0);
    }
    code
}

/// The pages with instructions behind a receive, and where in them.
fn pages(code: &[u8]) -> Vec<(&[u8], Vec<usize>)> {
    let receives = receives(code);
    let of = |n: usize| receives.iter().filter(|at| **at / PAGE == n).map(|at| at % PAGE).collect();
    let pages = code.chunks(PAGE).enumerate().map(|(n, page)| (page, of(n)));
    pages.filter(|(_, behind): &(_, Vec<usize>)| !behind.is_empty()).collect()
}

fn instruction(page: &[u8], at: usize) -> [u8; 4] {
    [page[at], page[at + 1], page[at + 2], page[at + 3]]
}

/// Offsets of the instructions behind the system calls that receive.
fn receives(code: &[u8]) -> Vec<usize> {
    let words: Vec<u32> =
        (0..code.len()).step_by(4).map(|at| u32::from_le_bytes(instruction(code, at))).collect();
    let behind = |n: usize| words[n.saturating_sub(NEAR)..n].iter().any(|word| RECV.contains(word));
    (0..words.len().saturating_sub(1)).filter(|n| words[*n] == SVC && behind(*n)).map(|n| 4 * n + 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_are_found_in_a_program() {
        let program: Vec<u8> =
            [0x9280_0087, SVC, RECV[0], 0x5280_0086, SVC, 0xa900_8d02, SVC, RECV[1], SVC, 0xd65f_03c0]
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect();
        // The call after it is near as well, and does no harm: it is after a receive in any case.
        assert_eq!(receives(&program), [20, 28, 36]);
        assert!(receives(&program[..8]).is_empty());
        // Its first receive is the last instruction of a page: the loop goes to the beginning of the next one.
        let mut code = vec![0; PAGE - 20];
        code.extend(program);
        code.resize(2 * PAGE, 0);
        assert_eq!(pages(&code), [(&code[PAGE..], vec![0, 8, 16])]);
    }
}
