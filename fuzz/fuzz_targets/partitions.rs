//! GPT and MBR: a disk with any content. Checksums are made right, so that what is behind them is reached.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use partita_storage::partition::{ReadSectors, Selector, TableError, resolve};

struct Image {
    bytes: Vec<u8>,
    block: u32,
    reads: usize,
}

impl ReadSectors for Image {
    fn read(&mut self, sector: u64, into: &mut [u8]) -> Result<(), TableError> {
        self.reads += 1;
        assert!(self.reads < 5000, "reading has an end");
        let at = usize::try_from(sector * 512).unwrap();
        into.copy_from_slice(&self.bytes[at..at + into.len()]);
        Ok(())
    }
    fn sectors(&self) -> u64 {
        self.bytes.len() as u64 / 512
    }
    fn block_size(&self) -> u32 {
        self.block
    }
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    large_blocks: bool,
    /// A header whose checksums are right: block of the entries, their number, their size (log2), usable blocks.
    header: Option<(u8, u16, u8, u64, u64)>,
    number: u32,
    first: u64,
    count: Option<u64>,
    label: &'a str,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let mut bytes = input.bytes.to_vec();
    bytes.resize(bytes.len().min(64 * 512).next_multiple_of(512), 0);
    let block = if input.large_blocks { 4096 } else { 512 };
    if let Some((lba, count, size, first, last)) = input.header
        && bytes.len() >= 2 * block
    {
        let mut put =
            |at: usize, field: &[u8]| bytes[block + at..block + at + field.len()].copy_from_slice(field);
        put(0, b"EFI PART");
        put(8, &0x10000u32.to_le_bytes());
        put(12, &92u32.to_le_bytes());
        put(24, &1u64.to_le_bytes());
        put(40, &first.to_le_bytes());
        put(48, &last.to_le_bytes());
        put(72, &u64::from(lba % 8).to_le_bytes());
        put(80, &u32::from(count % 64).to_le_bytes());
        put(84, &(1u32 << (size % 16)).to_le_bytes());
        let header = bytes[block..2 * block].to_vec();
        let at = u64::from_le_bytes(header[72..80].try_into().unwrap()) as usize;
        let len = word(&header, 80).saturating_mul(word(&header, 84));
        if let Some(entries) = at.checked_mul(block).and_then(|at| bytes.get(at..)?.get(..len)) {
            let sum = crc(entries);
            bytes[block + 88..block + 92].copy_from_slice(&sum.to_le_bytes());
        }
        bytes[block + 16..block + 20].fill(0);
        if let Some(summed) = bytes[block..2 * block].get(..word(&header, 12)) {
            let sum = crc(summed);
            bytes[block + 16..block + 20].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let sectors = bytes.len() as u64 / 512;
    for selector in [
        Selector::Label(input.label),
        Selector::Gpt(input.number),
        Selector::Mbr(input.number % 70),
        Selector::Range { first: input.first, count: input.count },
    ] {
        let mut image = Image { bytes: bytes.clone(), block: block as u32, reads: 0 };
        if let Ok(window) = resolve(&mut image, selector) {
            assert!(window.count() > 0);
            assert!(window.first().checked_add(window.count()).is_some_and(|end| end <= sectors));
        }
    }
});
