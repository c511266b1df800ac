//! Stage-2 translation tables (Arm ARM D8.3): 40-bit addresses, 4 KiB granule, two concatenated level-1 tables as root.
//!
//! They are built once at boot and never changed, so no translation is ever invalidated afterwards.

use crate::image::{Mapping, mapping};

/// Bytes of the root.
pub const ROOT_BYTES: u64 = 8192;
/// Bytes of a table.
pub const TABLE_BYTES: u64 = 4096;
const PAGE: u64 = 0x1000;
const LARGE: u64 = 0x20_0000;
/// Address space size.
const LIMIT: u64 = 1 << 40;

/// Descriptor bits.
mod bits {
    pub const VALID: u64 = 1;
    /// Table at levels 1 and 2, page at level 3.
    pub const TABLE: u64 = 2;
    pub const ADDRESS: u64 = 0xff_ffff_f000;
    pub const NORMAL: u64 = 0xf << 2;
    pub const READ: u64 = 1 << 6;
    pub const WRITE: u64 = 1 << 7;
    pub const INNER_SHAREABLE: u64 = 3 << 8;
    pub const ACCESSED: u64 = 1 << 10;
    pub const NO_EXECUTE: u64 = 1 << 54;
}

/// Memory that tables are made of.
pub trait TableMemory {
    /// A zeroed, aligned piece.
    fn allocate(&mut self, bytes: u64) -> Option<u64>;
    /// Reads a descriptor.
    fn read(&self, paddr: u64) -> u64;
    /// Writes a descriptor.
    fn write(&mut self, paddr: u64, value: u64);
}

/// Why a mapping cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Not aligned to its page size, or outside the address space.
    Address,
    /// Something is mapped there.
    Overlap,
    /// No memory for tables.
    Memory,
}

/// Adds a mapping to the tables at `root`.
pub fn map(memory: &mut impl TableMemory, root: u64, m: &Mapping) -> Result<(), MapError> {
    let page = if m.flags & mapping::LARGE != 0 { LARGE } else { PAGE };
    let end = m.vaddr.checked_add(m.size).filter(|end| *end <= LIMIT).ok_or(MapError::Address)?;
    if (m.vaddr | m.paddr | m.size) & (page - 1) != 0 || m.paddr.checked_add(m.size).is_none_or(|e| e > LIMIT)
    {
        return Err(MapError::Address);
    }
    let (mut vaddr, mut paddr) = (m.vaddr, m.paddr);
    while vaddr < end {
        let level2 = next_table(memory, root + (vaddr >> 30) * 8)?;
        let entry = level2 + (vaddr >> 21 & 511) * 8;
        let entry = if page == LARGE { entry } else { next_table(memory, entry)? + (vaddr >> 12 & 511) * 8 };
        if memory.read(entry) != 0 {
            return Err(MapError::Overlap);
        }
        let kind = if page == LARGE { bits::VALID } else { bits::VALID | bits::TABLE };
        memory.write(entry, paddr | attributes(m.flags) | kind);
        vaddr += page;
        paddr += page;
    }
    Ok(())
}

fn next_table(memory: &mut impl TableMemory, entry: u64) -> Result<u64, MapError> {
    match memory.read(entry) {
        0 => {
            let table = memory.allocate(TABLE_BYTES).ok_or(MapError::Memory)?;
            memory.write(entry, table | bits::VALID | bits::TABLE);
            Ok(table)
        }
        e if e & bits::TABLE != 0 => Ok(e & bits::ADDRESS),
        _ => Err(MapError::Overlap),
    }
}

fn attributes(flags: u32) -> u64 {
    let mut a = bits::ACCESSED;
    if flags & mapping::READ != 0 {
        a |= bits::READ;
    }
    if flags & mapping::WRITE != 0 {
        a |= bits::WRITE;
    }
    if flags & mapping::EXECUTE == 0 {
        a |= bits::NO_EXECUTE;
    }
    if flags & mapping::CACHED != 0 {
        a |= bits::NORMAL | bits::INNER_SHAREABLE;
    }
    a
}

/// Where `vaddr` is mapped, and the page's size.
pub fn walk(read: impl Fn(u64) -> u64, root: u64, vaddr: u64) -> Option<(u64, u64)> {
    if vaddr >= LIMIT {
        return None;
    }
    let table = |e: u64| (e & bits::VALID != 0).then_some(e & bits::ADDRESS);
    let level2 = table(read(root + (vaddr >> 30) * 8))?;
    let entry = read(level2 + (vaddr >> 21 & 511) * 8);
    let base = table(entry)?;
    if entry & bits::TABLE == 0 {
        return Some((base | vaddr & (LARGE - 1), LARGE));
    }
    let page = table(read(base + (vaddr >> 12 & 511) * 8))?;
    Some((page | vaddr & (PAGE - 1), PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Memory {
        words: std::collections::BTreeMap<u64, u64>,
        top: u64,
    }

    impl TableMemory for Memory {
        fn allocate(&mut self, bytes: u64) -> Option<u64> {
            let at = self.top.next_multiple_of(bytes);
            self.top = at + bytes;
            Some(at)
        }
        fn read(&self, paddr: u64) -> u64 {
            self.words.get(&paddr).copied().unwrap_or(0)
        }
        fn write(&mut self, paddr: u64, value: u64) {
            self.words.insert(paddr, value);
        }
    }

    proptest! {
        /// Every address inside a mapping translates to its place, those beside it do not; the pool bound holds.
        #[test]
        fn maps_what_it_says(
            page in 0u64..0xff_ffff, size in 1u64..2000, to in 0u64..0xf_ffff, large: bool, probe in 0u64..2000,
        ) {
            let unit = if large { LARGE } else { PAGE };
            let flags = if large { mapping::LARGE | mapping::READ } else { mapping::READ };
            let m = Mapping { vspace: 0, flags, vaddr: page * PAGE / unit * unit, paddr: to * PAGE / unit * unit,
                size: size * unit };
            prop_assume!(m.vaddr + m.size <= LIMIT && m.paddr + m.size <= LIMIT);
            let mut memory = Memory { top: 0x10_0000_0000, ..Default::default() };
            let root = memory.allocate(ROOT_BYTES).unwrap();
            prop_assert_eq!(map(&mut memory, root, &m), Ok(()));
            let at = probe * unit + 0x123;
            let found = walk(|a| memory.read(a), root, m.vaddr + at);
            let expected = (at < m.size).then_some((m.paddr + at, unit));
            prop_assert_eq!(found, expected);
            prop_assert_eq!(map(&mut memory, root, &m), Err(MapError::Overlap));
            prop_assert!((memory.top - root - ROOT_BYTES) / TABLE_BYTES <= crate::pool::tables(&m));
        }
    }

    #[test]
    fn refuses() {
        let mut memory = Memory::default();
        let root = memory.allocate(ROOT_BYTES).unwrap();
        let m = |vaddr, paddr, size, flags| Mapping { vspace: 0, flags, vaddr, paddr, size };
        assert_eq!(map(&mut memory, root, &m(0x800, 0, PAGE, 0)), Err(MapError::Address));
        assert_eq!(map(&mut memory, root, &m(PAGE, 0, LARGE, mapping::LARGE)), Err(MapError::Address));
        assert_eq!(map(&mut memory, root, &m(LIMIT - PAGE, 0, 2 * PAGE, 0)), Err(MapError::Address));
        assert_eq!(map(&mut memory, root, &m(0, 0, LARGE, mapping::LARGE)), Ok(()));
        assert_eq!(map(&mut memory, root, &m(PAGE, 0, PAGE, 0)), Err(MapError::Overlap));
    }
}
