//! ELF files of PDs, monitor and kernel.
//!
//! A file is foreign bytes: `object` reads the structures, everything derived from them is checked here, and the amount
//! of memory a file can ask for is bounded before it is taken.

use std::collections::BTreeMap;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, elf};

const PAGE: u64 = 0x1000;
/// More than a program has. Keeps a broken header from exhausting the host; great memory is for memory regions.
const MAX_IMAGE: u64 = 512 << 20;

/// A loadable segment, bss included.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Virtual address.
    pub vaddr: u64,
    /// Physical address.
    pub paddr: u64,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// Contents.
    pub data: Vec<u8>,
}

impl Segment {
    /// First byte of its first page.
    pub fn page_start(&self) -> u64 {
        self.vaddr & !(PAGE - 1)
    }
    /// Byte behind its last page.
    pub fn page_end(&self) -> u64 {
        (self.vaddr + self.data.len() as u64).next_multiple_of(PAGE)
    }
}

/// An ELF file in memory.
#[derive(Clone, Debug)]
pub struct Elf {
    /// First instruction.
    pub entry: u64,
    /// Segments in file order.
    pub segments: Vec<Segment>,
    /// Address and size by name, `None` if a name occurs more than once.
    symbols: BTreeMap<String, Option<(u64, u64)>>,
}

impl Elf {
    /// Reads `bytes`; with `symbols`, the symbol table is taken from there.
    pub fn parse(bytes: &[u8], symbols: Option<&[u8]>) -> Result<Self, String> {
        let (entry, segments) = read_segments(bytes)?;
        let symbols = read_symbols(symbols.unwrap_or(bytes))?;
        Ok(Self { entry, segments, symbols })
    }

    /// Address and size of a symbol.
    pub fn symbol(&self, name: &str) -> Result<(u64, u64), String> {
        match self.symbols.get(name) {
            Some(Some(symbol)) => Ok(*symbol),
            Some(None) => Err(format!("several symbols are named '{name}'")),
            None => Err(format!("there is no symbol '{name}'")),
        }
    }

    /// Writes the first bytes of a symbol.
    pub fn write(&mut self, name: &str, data: &[u8]) -> Result<(), String> {
        let (address, size) = self.symbol(name)?;
        if (data.len() as u64) > size {
            return Err(format!("symbol '{name}' has {size} bytes, {} are needed", data.len()));
        }
        let outside = || format!("symbol '{name}' lies outside of the loaded segments");
        let end = address.checked_add(size).ok_or_else(outside)?;
        let segment = self
            .segments
            .iter_mut()
            .find(|segment| address >= segment.vaddr && end <= segment.vaddr + segment.data.len() as u64)
            .ok_or_else(outside)?;
        let start = (address - segment.vaddr) as usize;
        segment.data[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn read_segments(bytes: &[u8]) -> Result<(u64, Vec<Segment>), String> {
    let broken = |error: object::Error| format!("not an ELF file: {error}");
    let header = elf::FileHeader64::<Endianness>::parse(bytes).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if endian != Endianness::Little {
        return Err("the file is big-endian, not little-endian".to_owned());
    }
    if header.e_machine(endian) != elf::EM_AARCH64 {
        return Err(format!("the file is for machine {}, not AArch64", header.e_machine(endian)));
    }
    let mut segments: Vec<Segment> = Vec::new();
    let mut total = 0_u64;
    for entry in header.program_headers(endian, bytes).map_err(broken)? {
        if entry.p_type(endian) != elf::PT_LOAD || entry.p_memsz(endian) == 0 {
            continue;
        }
        let (vaddr, size) = (entry.p_vaddr(endian), entry.p_memsz(endian));
        total = total.saturating_add(size);
        if total > MAX_IMAGE || vaddr.checked_add(size).is_none_or(|end| end > u64::MAX - PAGE) {
            return Err(format!("a segment of {size:#x} bytes at {vaddr:#x} is too great"));
        }
        let contents = entry.data(endian, bytes).map_err(|()| "a segment exceeds the file".to_owned())?;
        if contents.len() as u64 > size {
            return Err(format!("the segment at {vaddr:#x} has more bytes in the file than in memory"));
        }
        let mut data = contents.to_vec();
        data.resize(size as usize, 0);
        let flags = entry.p_flags(endian);
        segments.push(Segment {
            vaddr,
            paddr: entry.p_paddr(endian),
            read: flags & elf::PF_R != 0,
            write: flags & elf::PF_W != 0,
            execute: flags & elf::PF_X != 0,
            data,
        });
    }
    if segments.is_empty() {
        return Err("there is no loadable segment".to_owned());
    }
    Ok((header.e_entry(endian), segments))
}

fn read_symbols(bytes: &[u8]) -> Result<BTreeMap<String, Option<(u64, u64)>>, String> {
    let file = object::read::elf::ElfFile64::<Endianness>::parse(bytes)
        .map_err(|error| format!("not an ELF file: {error}"))?;
    if file.symbol_table().is_none() {
        return Err("there is no symbol table (do not strip the file)".to_owned());
    }
    let mut symbols = BTreeMap::new();
    for symbol in file.symbols() {
        let Ok(name) = symbol.name() else { return Err("the name of a symbol is broken".to_owned()) };
        symbols
            .entry(name.to_owned())
            .and_modify(|seen| *seen = None)
            .or_insert(Some((symbol.address(), symbol.size())));
    }
    Ok(symbols)
}
