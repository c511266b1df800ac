//! Physical memory: what lies where.
//!
//! The image stays where it was loaded, and so do all contents that may be anywhere; everything else is taken from the
//! free memory around it, contiguous where possible, great and strictly aligned pieces first.

use std::ops::Range;

use crate::sdf::model::Paddr;
use crate::spec::{Contents, Memory, MemoryId};

/// A part of a [`Memory`] that is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes from the memory's start.
    pub offset: u64,
    /// Physical address.
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
}

/// Free physical memory.
#[derive(Clone, Debug, Default)]
pub struct Free(Vec<Range<u64>>);

impl Free {
    /// All of `ranges`.
    pub fn new(ranges: &[Range<u64>]) -> Self {
        let mut ranges = ranges.to_vec();
        ranges.sort_by_key(|range| range.start);
        Self(ranges)
    }

    /// Takes `taken` out; what is not free is skipped.
    pub fn remove(&mut self, taken: &Range<u64>) {
        let mut rest = Vec::with_capacity(self.0.len() + 1);
        for range in &self.0 {
            rest.push(range.start..range.end.min(taken.start));
            rest.push(range.start.max(taken.end)..range.end);
        }
        rest.retain(|range| range.start < range.end);
        rest.dedup();
        self.0 = rest;
    }

    /// Takes the lowest `size` bytes aligned to `align`.
    pub fn allocate(&mut self, size: u64, align: u64) -> Option<u64> {
        let start = self.0.iter().find_map(|range| {
            let start = range.start.checked_next_multiple_of(align)?;
            (start.checked_add(size)? <= range.end).then_some(start)
        })?;
        self.remove(&(start..start + size));
        Some(start)
    }

    /// The greatest range, page-aligned.
    pub fn greatest(&self) -> Range<u64> {
        let aligned = |range: &Range<u64>| {
            let start = range.start.next_multiple_of(0x1000);
            start..(range.end & !0xfff).max(start)
        };
        // The lowest of equals, for the same output always.
        self.0.iter().map(aligned).rev().max_by_key(|range| range.end - range.start).unwrap_or(0..0)
    }

    /// Ranges in ascending order.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }
}

/// Whether its contents stay in the image.
pub fn in_place(memory: &Memory) -> bool {
    has_bytes(memory) && !matches!(memory.paddr, Paddr::Fixed(_))
}

/// Whether it has contents in the image.
pub fn has_bytes(memory: &Memory) -> bool {
    matches!(memory.contents, Contents::Segment(..) | Contents::File(_) | Contents::Bytes(_))
}

/// Places contents one behind the other from `start`: those of small pages first, so that the gap before the first
/// large page is all that alignment costs. Returns the place of each and the end.
pub fn lay_out_contents(memories: &[Memory], start: u64) -> (Vec<(MemoryId, u64)>, u64) {
    let mut order: Vec<MemoryId> = (0..memories.len()).filter(|&id| has_bytes(&memories[id])).collect();
    let align = |id: &MemoryId| if in_place(&memories[*id]) { memories[*id].page_size } else { 0x1000 };
    order.sort_by_key(align);
    let mut at = start;
    let mut places = Vec::with_capacity(order.len());
    for id in order {
        at = at.next_multiple_of(align(&id));
        places.push((id, at));
        at = at.saturating_add(memories[id].size);
    }
    (places, at.next_multiple_of(0x1000))
}

/// Gives every memory its place. `contents` is what [`lay_out_contents`] returned.
pub fn place(
    memories: &[Memory],
    contents: &[(MemoryId, u64)],
    image: &Range<u64>,
    ram: &[Range<u64>],
) -> Result<(Vec<Vec<Piece>>, Free), String> {
    let mut free = Free::new(ram);
    free.remove(image);
    let mut pieces = vec![Vec::new(); memories.len()];
    for (memory, pieces) in memories.iter().zip(&mut pieces) {
        let Paddr::Fixed(paddr) = memory.paddr else { continue };
        let end = paddr.saturating_add(memory.size);
        if paddr < image.end && image.start < end {
            return Err(format!(
                "'{}' at {paddr:#x}..{end:#x} overlaps the image at {:#x}..{:#x}; choose another phys_addr",
                memory.name, image.start, image.end
            ));
        }
        free.remove(&(paddr..end));
        pieces.push(Piece { offset: 0, paddr, size: memory.size });
    }
    for (id, paddr) in contents {
        if in_place(&memories[*id]) {
            pieces[*id].push(Piece { offset: 0, paddr: *paddr, size: memories[*id].size });
        }
    }
    let mut order: Vec<MemoryId> = (0..memories.len()).filter(|&id| pieces[id].is_empty()).collect();
    // Contiguous ones cannot be split, so they choose first.
    let key = |&id: &MemoryId| {
        let memory = &memories[id];
        let splittable = memory.paddr != Paddr::Chosen;
        (splittable, std::cmp::Reverse(memory.page_size), std::cmp::Reverse(memory.size))
    };
    order.sort_by_key(key);
    for id in order {
        let memory = &memories[id];
        pieces[id] = allocate(memory, &mut free).ok_or_else(|| no_room(memory, &free))?;
    }
    Ok((pieces, free))
}

fn allocate(memory: &Memory, free: &mut Free) -> Option<Vec<Piece>> {
    if memory.size == 0 {
        return Some(Vec::new());
    }
    if let Some(paddr) = free.allocate(memory.size, memory.page_size) {
        return Some(vec![Piece { offset: 0, paddr, size: memory.size }]);
    }
    if memory.paddr == Paddr::Chosen {
        return None;
    }
    let mut pieces = Vec::new();
    let mut offset = 0;
    let ranges = free.ranges().to_vec();
    for range in ranges {
        let start = range.start.next_multiple_of(memory.page_size);
        let room = range.end.saturating_sub(start) & !(memory.page_size - 1);
        let size = room.min(memory.size - offset);
        if size > 0 {
            free.remove(&(start..start + size));
            pieces.push(Piece { offset, paddr: start, size });
            offset += size;
        }
    }
    (offset == memory.size).then_some(pieces)
}

fn no_room(memory: &Memory, free: &Free) -> String {
    let contiguous = if memory.paddr == Paddr::Chosen { "contiguous " } else { "" };
    let ranges: Vec<_> = free
        .ranges()
        .iter()
        .map(|range| {
            format!("{:#x}..{:#x} ({} KiB)", range.start, range.end, (range.end - range.start) >> 10)
        })
        .collect();
    format!(
        "there is no {contiguous}memory for '{}' ({:#x} bytes); free are: {}; make regions smaller",
        memory.name,
        memory.size,
        if ranges.is_empty() { "none".to_owned() } else { ranges.join(", ") }
    )
}
