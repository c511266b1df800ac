//! loader.img: the kernel's memory, the boot description, the contents of regions.

use std::ops::Range;

use partita_kernel::{image, pool};
use zerocopy::{Immutable, IntoBytes};

use crate::caps;
use crate::describe::{self, Tables};
use crate::elf::Elf;
use crate::memory::{self, Free, Piece};
use crate::patch;
use crate::sdf::System;
use crate::sdk::Board;
use crate::spec::{Contents, Memory, MemoryId, Spec};

const PAGE: u64 = 0x1000;
/// Kernel variable with the physical address of the boot description.
const SYMBOL: &str = "partita_boot_description";

/// A packed system.
#[derive(Debug)]
pub struct Packed {
    /// Where the image is loaded and entered.
    pub base: u64,
    /// The image.
    pub image: Vec<u8>,
    /// The objects.
    pub spec: Spec,
    /// Where each memory lies.
    pub pieces: Vec<Vec<Piece>>,
    /// Memory the kernel takes its objects from.
    pub pool: Range<u64>,
    /// Bytes of it that it needs at most.
    pub pool_needed: u64,
}

/// The kernel as it lies in memory.
struct Kernel {
    base: u64,
    bytes: Vec<u8>,
    variable: usize,
}

/// Packs `system`. `elfs` are those of its PDs, then the monitor's.
pub fn pack(system: &System, mut elfs: Vec<Elf>, kernel: &Elf, board: &Board) -> Result<Packed, String> {
    let mut kernel = load_kernel(kernel)?;
    let spec = caps::build(system, &elfs, board)?;
    let description = kernel.base + kernel.bytes.len() as u64;

    // Tables grow with the number of pieces, pieces depend on where the image ends: settles in a step or two.
    let mut reserved = 0;
    let (tables, layout) = loop {
        let layout = lay_out(&spec, &kernel, description, reserved, board)?;
        let tables = describe::tables(&spec, &layout.pieces, &layout.contents, &board.memory)?;
        let size = describe::size(&tables);
        if size <= reserved {
            break (tables, layout);
        }
        reserved = size;
    };
    let paddr = |name: &str| {
        let index = system.regions.iter().position(|region| region.name == name)?;
        let memory = format!("mr_{}", system.regions.get(index)?.name);
        let id = spec.memories.iter().position(|candidate| candidate.name == memory)?;
        layout.pieces.get(id)?.first().map(|piece| piece.paddr)
    };
    patch::patch(system, &mut elfs, board, &paddr)?;

    let pool = layout.free.greatest();
    let header = describe::header(&spec, &tables, &layout.image, &pool, board.user_top);
    let pool_needed = pool::required(&header, &tables.mappings, &tables.cnodes, 0);
    if pool.end - pool.start < pool_needed {
        return Err(format!(
            "{} KiB remain for the kernel's objects, which need {} KiB; make memory regions smaller",
            (pool.end - pool.start) >> 10,
            pool_needed >> 10
        ));
    }
    kernel.bytes[kernel.variable..kernel.variable + 8].copy_from_slice(&description.to_le_bytes());
    let mut image = kernel.bytes;
    write_description(&mut image, &header, &tables);
    for (id, at) in &layout.contents {
        write_contents(&mut image, (at - kernel.base) as usize, &spec.memories[*id], &elfs);
    }
    image.resize((layout.image.end - layout.image.start) as usize, 0);
    Ok(Packed { base: kernel.base, image, spec, pieces: layout.pieces, pool, pool_needed })
}

struct Layout {
    image: Range<u64>,
    contents: Vec<(MemoryId, u64)>,
    pieces: Vec<Vec<Piece>>,
    free: Free,
}

fn lay_out(
    spec: &Spec,
    kernel: &Kernel,
    description: u64,
    reserved: u64,
    board: &Board,
) -> Result<Layout, String> {
    let start = (description + reserved).next_multiple_of(PAGE);
    let (contents, end) = memory::lay_out_contents(&spec.memories, start);
    let image = kernel.base..end;
    if !board.memory.iter().any(|range| range.start <= image.start && image.end <= range.end) {
        return Err(format!(
            "the image at {:#x}..{:#x} exceeds the board's memory; make prefilled regions smaller",
            image.start, image.end
        ));
    }
    let (pieces, free) = memory::place(&spec.memories, &contents, &image, &board.memory)?;
    Ok(Layout { image, contents, pieces, free })
}

fn load_kernel(elf: &Elf) -> Result<Kernel, String> {
    let start = elf.segments.iter().map(|segment| segment.paddr).min().unwrap_or_default();
    let end =
        elf.segments.iter().map(|s| s.paddr.saturating_add(s.data.len() as u64)).max().unwrap_or_default();
    if start % PAGE != 0 || end - start > 1 << 24 {
        return Err(format!("the kernel at {start:#x}..{end:#x} is not the embedded SDK's"));
    }
    let mut bytes = vec![0; (end - start).next_multiple_of(PAGE) as usize];
    let mut entry = None;
    let mut variable = None;
    let (address, size) = elf.symbol(SYMBOL).map_err(|error| {
        format!(
            "the kernel is not the embedded SDK's: {error}; use the official SDK's own bin/microkit for it"
        )
    })?;
    for segment in &elf.segments {
        let at = (segment.paddr - start) as usize;
        bytes[at..at + segment.data.len()].copy_from_slice(&segment.data);
        let inside = |address: u64| {
            let offset = address.checked_sub(segment.vaddr)?;
            (offset < segment.data.len() as u64).then_some(at + offset as usize)
        };
        entry = entry.or(inside(elf.entry));
        variable = variable.or(inside(address));
    }
    if entry != Some(0) {
        return Err(format!("the kernel's entry {:#x} is not its first byte", elf.entry));
    }
    match variable {
        Some(variable) if size == 8 && variable + 8 <= bytes.len() => {
            Ok(Kernel { base: start, bytes, variable })
        }
        _ => Err(format!("the kernel's symbol '{SYMBOL}' is not a variable of 8 bytes")),
    }
}

fn write_description(image: &mut Vec<u8>, header: &image::Header, tables: &Tables) {
    let base = image.len();
    let mut put = |offset: u32, bytes: &[u8]| {
        let at = base + offset as usize;
        if image.len() < at + bytes.len() {
            image.resize(at + bytes.len(), 0);
        }
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    fn bytes<T: IntoBytes + Immutable>(records: &[T]) -> &[u8] {
        records.as_bytes()
    }
    put(0, header.as_bytes());
    put(header.fills.offset, bytes(&tables.fills));
    put(header.mappings.offset, bytes(&tables.mappings));
    put(header.cnodes.offset, bytes(&tables.cnodes));
    put(header.slots.offset, bytes(&tables.slots));
    put(header.sched_contexts.offset, bytes(&tables.sched_contexts));
    put(header.irqs.offset, bytes(&tables.irqs));
    put(header.vcpus.offset, bytes(&tables.vcpus));
    put(header.tcbs.offset, bytes(&tables.tcbs));
}

fn write_contents(image: &mut Vec<u8>, at: usize, memory: &Memory, elfs: &[Elf]) {
    let (offset, bytes): (usize, &[u8]) = match &memory.contents {
        Contents::Segment(elf, segment, offset) => {
            let Some(segment) = elfs.get(*elf).and_then(|elf| elf.segments.get(*segment)) else { return };
            (*offset as usize, &segment.data)
        }
        Contents::File(bytes) => (0, bytes),
        Contents::Bytes(bytes) => (0, bytes),
        Contents::Zero | Contents::Untouched => return,
    };
    let start = at + offset;
    if image.len() < start + bytes.len() {
        image.resize(start + bytes.len(), 0);
    }
    image[start..start + bytes.len()].copy_from_slice(bytes);
}
