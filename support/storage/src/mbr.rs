//! Master boot record: four primary partitions and a chain of logical ones, read from a disk that anybody may have
//! written. The format is folklore; this follows what Linux and the UEFI specification (5.2.1) agree on.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::SECTOR;
use crate::partition::{ReadSectors, TableError};
use crate::window::Window;

/// Logical partitions that we follow: the chain may have a loop.
const MAX_LOGICAL: u32 = 60;
const MAX_BLOCK: usize = 4096;
const PROTECTIVE: u8 = 0xee;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    boot: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first: U32,
    count: U32,
}

impl Entry {
    fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }
}

/// Finds partition `number`: 1 to 4 primary, from 5 logical.
pub fn find(device: &mut impl ReadSectors, number: u32) -> Result<Window, TableError> {
    let primary = read_table(device, 0)?;
    if primary.iter().any(|entry| entry.kind == PROTECTIVE) {
        // This is a GPT disk; its numbers mean something else.
        return Err(TableError::NoTable);
    }
    match number {
        0 => Err(TableError::NotFound),
        1..=4 => {
            let entry = primary.get(number as usize - 1).ok_or(TableError::NotFound)?;
            if entry.kind == 0 || entry.is_extended() {
                return Err(TableError::NotFound);
            }
            window(device, 0, entry)
        }
        _ => {
            let extended = primary.iter().find(|entry| entry.is_extended()).ok_or(TableError::NotFound)?;
            find_logical(device, u64::from(extended.first.get()), number - 5)
        }
    }
}

fn find_logical(device: &mut impl ReadSectors, base: u64, index: u32) -> Result<Window, TableError> {
    let mut at = base;
    let mut left = index;
    for _ in 0..MAX_LOGICAL {
        let table = read_table(device, at)?;
        // One entry is the partition, relative to this record; one the next record, relative to the first.
        let here = table.iter().find(|entry| entry.kind != 0 && !entry.is_extended());
        if let Some(entry) = here {
            if left == 0 {
                return window(device, at, entry);
            }
            left -= 1;
        }
        let next = table.iter().find(|entry| entry.is_extended()).ok_or(TableError::NotFound)?;
        at = base + u64::from(next.first.get());
    }
    Err(TableError::NotFound)
}

fn read_table(device: &mut impl ReadSectors, block: u64) -> Result<[Entry; 4], TableError> {
    let size = device.block_size();
    let per_block = u64::from(size) / SECTOR;
    let mut buffer = [0; MAX_BLOCK];
    let bytes = buffer.get_mut(..size as usize).ok_or(TableError::NoTable)?;
    let sector = block.checked_mul(per_block).ok_or(TableError::NoTable)?;
    if per_block == 0 || sector.checked_add(per_block).is_none_or(|end| end > device.sectors()) {
        return Err(TableError::NoTable);
    }
    device.read(sector, bytes)?;
    if bytes.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(TableError::NoTable);
    }
    let table = bytes.get(446..510).ok_or(TableError::NoTable)?;
    <[Entry; 4]>::read_from_bytes(table).map_err(|_| TableError::NoTable)
}

fn window(device: &impl ReadSectors, base: u64, entry: &Entry) -> Result<Window, TableError> {
    let per_block = u64::from(device.block_size()) / SECTOR;
    let first = (base + u64::from(entry.first.get())) * per_block;
    Window::new(first, u64::from(entry.count.get()) * per_block, device.sectors()).ok_or(TableError::Range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::tests::Image;
    use proptest::prelude::*;

    fn entry(kind: u8, first: u32, count: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[4] = kind;
        bytes[8..12].copy_from_slice(&first.to_le_bytes());
        bytes[12..].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    fn record(image: &mut Image, sector: usize, entries: &[[u8; 16]]) {
        let at = sector * 512;
        image.0[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
        for (i, entry) in entries.iter().enumerate() {
            image.0[at + 446 + 16 * i..][..16].copy_from_slice(entry);
        }
    }

    #[test]
    fn primary_and_logical() {
        let mut image = Image::blank(4000);
        record(
            &mut image,
            0,
            &[entry(0x83, 100, 50), [0; 16], entry(0x0f, 1000, 2000), entry(0x83, 3000, 1001)],
        );
        record(&mut image, 1000, &[entry(0x83, 8, 100), entry(5, 500, 600)]);
        record(&mut image, 1500, &[entry(0x83, 8, 200)]);
        let mut at = |number| find(&mut image, number).map(|w| (w.first(), w.count()));
        assert_eq!(at(1), Ok((100, 50)));
        assert_eq!(at(2), Err(TableError::NotFound));
        assert_eq!(at(3), Err(TableError::NotFound), "the extended one is no disk");
        assert_eq!(at(4), Err(TableError::Range));
        assert_eq!(at(5), Ok((1008, 100)));
        assert_eq!(at(6), Ok((1508, 200)));
        assert_eq!(at(7), Err(TableError::NotFound));
        assert_eq!(at(0), Err(TableError::NotFound));
    }

    #[test]
    fn broken_tables() {
        let mut image = Image::blank(4000);
        assert_eq!(find(&mut image, 1), Err(TableError::NoTable));
        record(&mut image, 0, &[entry(PROTECTIVE, 1, 3999)]);
        assert_eq!(find(&mut image, 1), Err(TableError::NoTable));
        record(&mut image, 0, &[entry(5, 1000, 100)]);
        record(&mut image, 1000, &[[0; 16], entry(5, 0, 100)]);
        assert_eq!(find(&mut image, 5), Err(TableError::NotFound), "a loop ends");
        record(&mut image, 0, &[entry(5, 4000, 100)]);
        assert_eq!(find(&mut image, 5), Err(TableError::NoTable), "outside");
    }

    proptest! {
        #[test]
        fn any_table(entries: [[u8; 16]; 4], number in 0u32..80) {
            let mut image = Image::blank(64);
            for sector in [0, 1, 5, 63] {
                record(&mut image, sector, &entries);
            }
            if let Ok(window) = find(&mut image, number) {
                prop_assert!(window.first() + window.count() <= 64);
            }
        }
    }
}
