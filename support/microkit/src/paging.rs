//! The translation tables that address spaces need.
//!
//! The kernel builds its tables itself; these exist for report and capDL file, where the official tool lists them.

use std::collections::BTreeMap;

use crate::spec::{Id, Mapping, MemoryId, Object, Spec};

/// Address bits below the index of each level, root-most first.
const SHIFTS: [u32; 4] = [39, 30, 21, 12];
const NAMES: [&str; 4] = ["pgd", "pud", "pd", "pt"];

/// What a table's slot holds.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A table of the same address space.
    Table(usize),
    /// A frame: its memory, its number in it, how it is mapped.
    Frame(MemoryId, u64, Mapping),
}

/// A translation table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Name as the official tool gives it.
    pub name: String,
    /// Level, 3 for the last.
    pub level: usize,
    /// Filled slots.
    pub slots: BTreeMap<u32, Entry>,
}

/// Tables of the address space `id`, the root first.
pub fn tables(spec: &Spec, id: Id, user_top: u64) -> Vec<Table> {
    let root = if user_top < 1 << 40 { 1 } else { 0 };
    let Some(Object::VSpace(maps)) = spec.objects.get(id).map(|named| &named.object) else {
        return Vec::new();
    };
    let name = spec.name(id).to_owned();
    let space = name.split_once('_').map_or("", |(_, space)| space).to_owned();
    let mut tables = vec![Table { name, level: root, slots: BTreeMap::new() }];
    for map in maps {
        let memory = &spec.memories[map.memory];
        let leaf = if memory.page_size > 0x1000 { 2 } else { 3 };
        for number in 0..memory.size / memory.page_size {
            let vaddr = map.vaddr + number * memory.page_size;
            let mut at = 0;
            for level in root..leaf {
                let index = index(vaddr, level, root);
                let next = tables.len();
                let entry = *tables[at].slots.entry(index).or_insert(Entry::Table(next));
                // A large page in the way cannot be: mappings do not overlap.
                let Entry::Table(child) = entry else { break };
                if child == next {
                    let first = vaddr >> SHIFTS[level + 1] << SHIFTS[level + 1];
                    tables.push(Table {
                        name: format!("{}_{space}_vaddr_{first:#x}", NAMES[level + 1]),
                        level: level + 1,
                        slots: BTreeMap::new(),
                    });
                }
                at = child;
            }
            tables[at].slots.insert(index(vaddr, leaf, root), Entry::Frame(map.memory, number, *map));
        }
    }
    tables
}

fn index(vaddr: u64, level: usize, root: usize) -> u32 {
    let index = vaddr >> SHIFTS[level];
    // The root of a 40-bit space is two concatenated tables.
    (if level == root { index } else { index & 511 }) as u32
}
