//! The image as an ELF file: one loadable segment, entered at its first byte.

use object::elf;

const HEADERS: u64 = 0x1000;

/// Wraps `image`, which belongs at physical address `base`.
pub fn wrap(base: u64, image: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADERS as usize + image.len());
    out.extend_from_slice(&elf::ELFMAG);
    out.extend_from_slice(&[elf::ELFCLASS64, elf::ELFDATA2LSB, elf::EV_CURRENT]);
    out.resize(16, 0);
    let half = |out: &mut Vec<u8>, value: u16| out.extend_from_slice(&value.to_le_bytes());
    let word = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_le_bytes());
    let long = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes());
    half(&mut out, elf::ET_EXEC);
    half(&mut out, elf::EM_AARCH64);
    word(&mut out, u32::from(elf::EV_CURRENT));
    long(&mut out, base);
    long(&mut out, 64);
    long(&mut out, 0);
    word(&mut out, 0);
    // Sizes: this header, a program header and their number, no section headers.
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut out, value);
    }
    word(&mut out, elf::PT_LOAD);
    word(&mut out, elf::PF_R | elf::PF_W | elf::PF_X);
    let size = image.len() as u64;
    for value in [HEADERS, base, base, size, size, HEADERS] {
        long(&mut out, value);
    }
    out.resize(HEADERS as usize, 0);
    out.extend_from_slice(image);
    out
}
