//! GUID partition table (UEFI 2.10, section 5.3), read from a disk that anybody may have written.
//!
//! The primary header is at block 1; if it, or its entries, do not check out, the backup in the last block is used. Nothing
//! is repaired: that is the owner's business. Every number is checked before it is used, and the loops are bounded by
//! [`MAX_ENTRIES`].

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::device::SECTOR;
use crate::partition::{ReadSectors, TableError};
use crate::window::Window;

/// Most partitions that a table may have. Tools make 128.
pub const MAX_ENTRIES: u32 = 1024;
/// Bytes of an entry that we understand.
const ENTRY: usize = 128;
/// Bytes read at a time; also the greatest entry size and block size.
const CHUNK: usize = 4096;

/// Which partition.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// By name, which must be unique.
    Label(&'a str),
    /// By number, from 1.
    Number(u32),
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable: U64,
    last_usable: U64,
    disk_guid: [u8; 16],
    entries_lba: U64,
    entries: U32,
    entry_size: U32,
    entries_crc: U32,
}

const _: () = assert!(size_of::<Header>() == 92);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    kind: [u8; 16],
    guid: [u8; 16],
    first: U64,
    last: U64,
    attributes: U64,
    name: [U16; 36],
}

const _: () = assert!(size_of::<Entry>() == ENTRY);

/// Finds a partition by the first intact copy of the table.
pub fn find(device: &mut impl ReadSectors, wanted: Wanted<'_>) -> Result<Window, TableError> {
    let per_block = u64::from(device.block_size()) / SECTOR;
    if !device.block_size().is_power_of_two() || per_block == 0 || device.block_size() as usize > CHUNK {
        return Err(TableError::NoTable);
    }
    let blocks = device.sectors() / per_block;
    let last = blocks.checked_sub(1).ok_or(TableError::NoTable)?;
    let primary = find_at(device, 1, blocks, wanted);
    match primary {
        // Not found in an intact table is the answer; so is success.
        Err(TableError::NoTable | TableError::Read) => match find_at(device, last, blocks, wanted) {
            Err(TableError::NoTable) => primary,
            backup => backup,
        },
        primary => primary,
    }
}

fn find_at(
    device: &mut impl ReadSectors,
    lba: u64,
    blocks: u64,
    wanted: Wanted<'_>,
) -> Result<Window, TableError> {
    let per_block = u64::from(device.block_size()) / SECTOR;
    let header = read_header(device, lba, blocks)?;
    let entry_size = header.entry_size.get() as usize;
    let total = u64::from(header.entries.get()) * u64::from(header.entry_size.get());
    let mut chunk = [0; CHUNK];
    let mut sector = header.entries_lba.get().checked_mul(per_block).ok_or(TableError::NoTable)?;
    let mut crc = Crc::new();
    let mut found = Err(TableError::NotFound);
    let (mut done, mut number) = (0u64, 0u32);
    while done < total {
        let bytes = (total - done).min(CHUNK as u64) as usize;
        let whole = bytes.next_multiple_of(SECTOR as usize);
        let read = chunk.get_mut(..whole).ok_or(TableError::NoTable)?;
        if sector.checked_add(whole as u64 / SECTOR).is_none_or(|end| end > device.sectors()) {
            return Err(TableError::NoTable);
        }
        device.read(sector, read)?;
        let part = chunk.get(..bytes).ok_or(TableError::NoTable)?;
        crc.add(part);
        // CHUNK is a multiple of the entry size, so entries do not cross chunks.
        for raw in part.chunks_exact(entry_size) {
            number += 1;
            let (entry, _) = Entry::read_from_prefix(raw).map_err(|_| TableError::NoTable)?;
            if entry.kind != [0; 16] && matches(&entry, number, wanted) {
                found = match found {
                    Err(TableError::NotFound) => window(&entry, &header, blocks, per_block),
                    _ => Err(TableError::Ambiguous),
                };
            }
        }
        done += bytes as u64;
        sector += whole as u64 / SECTOR;
    }
    if crc.value() == header.entries_crc.get() { found } else { Err(TableError::NoTable) }
}

fn read_header(device: &mut impl ReadSectors, lba: u64, blocks: u64) -> Result<Header, TableError> {
    let block_size = device.block_size();
    let mut block = [0; CHUNK];
    let block = block.get_mut(..block_size as usize).ok_or(TableError::NoTable)?;
    if lba >= blocks {
        return Err(TableError::NoTable);
    }
    device.read(lba * (u64::from(block_size) / SECTOR), block)?;
    let (header, _) = Header::read_from_prefix(block).map_err(|_| TableError::NoTable)?;
    let size = header.header_size.get() as usize;
    let summed = block.get_mut(..size).filter(|_| size >= size_of::<Header>()).ok_or(TableError::NoTable)?;
    let mut crc = Crc::new();
    if let Some(field) = summed.get_mut(16..20) {
        field.zero();
    }
    crc.add(summed);
    let entry_size = header.entry_size.get() as usize;
    let intact = header.signature == *b"EFI PART"
        && crc.value() == header.header_crc.get()
        && header.my_lba.get() == lba
        && header.revision.get() >> 16 == 1
        && entry_size.is_power_of_two()
        && (ENTRY..=CHUNK).contains(&entry_size)
        && (1..=MAX_ENTRIES).contains(&header.entries.get());
    if intact { Ok(header) } else { Err(TableError::NoTable) }
}

fn matches(entry: &Entry, number: u32, wanted: Wanted<'_>) -> bool {
    match wanted {
        Wanted::Number(wanted) => number == wanted,
        // UTF-16 up to the first 0 or all 36 units.
        Wanted::Label(label) => {
            let name = entry.name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0);
            !label.is_empty() && name.eq(label.encode_utf16())
        }
    }
}

fn window(entry: &Entry, header: &Header, blocks: u64, per_block: u64) -> Result<Window, TableError> {
    let (first, last) = (entry.first.get(), entry.last.get());
    if first < header.first_usable.get() || last > header.last_usable.get() || last < first || last >= blocks
    {
        return Err(TableError::Range);
    }
    // No overflow: last < blocks, and blocks * per_block <= sectors.
    Window::new(first * per_block, (last - first + 1) * per_block, blocks * per_block)
        .ok_or(TableError::Range)
}

/// CRC-32 as in Ethernet, a nibble at a time: small, and a table is read once.
struct Crc(u32);

impl Crc {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 != 0 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };

    const fn new() -> Self {
        Crc(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            for nibble in [byte & 15, byte >> 4] {
                let index = (self.0 ^ u32::from(nibble)) & 15;
                let entry = Self::TABLE.get(index as usize).copied().unwrap_or(0);
                self.0 = self.0 >> 4 ^ entry;
            }
        }
    }

    const fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
pub(crate) mod tests;
