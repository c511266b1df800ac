//! ELF files and SDF texts for tests.
#![allow(dead_code)] // each test program uses its part

use partita_microkit::elf::Elf;
use partita_microkit::pack::{self, Packed};
use partita_microkit::sdf::{self, Files, System};
use partita_microkit::sdk::Board;

/// A loadable segment: address, bytes in the file, bytes in memory, flags (1 execute, 2 write, 4 read).
pub struct Segment(pub u64, pub Vec<u8>, pub u64, pub u32);

/// Makes an ELF file. Symbols are name, address, size.
pub fn elf(machine: u16, entry: u64, segments: &[Segment], symbols: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut names = b"\0.symtab\0.strtab\0".to_vec();
    let mut table = vec![0; 24];
    for (name, address, size) in symbols {
        table.extend_from_slice(&(names.len() as u32).to_le_bytes());
        table.extend_from_slice(&[0x11, 0, 0xf1, 0xff]); // global object, absolute
        table.extend_from_slice(&address.to_le_bytes());
        table.extend_from_slice(&size.to_le_bytes());
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    let mut at = 64 + 56 * segments.len() as u64;
    let mut headers = Vec::new();
    let mut body = Vec::new();
    for Segment(vaddr, data, size, flags) in segments {
        headers.extend_from_slice(&1_u32.to_le_bytes());
        headers.extend_from_slice(&flags.to_le_bytes());
        for value in [at, *vaddr, *vaddr, data.len() as u64, *size, 4096] {
            headers.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(data);
        at += data.len() as u64;
    }
    let table_at = at;
    let names_at = table_at + table.len() as u64;
    let sections_at = names_at + names.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend_from_slice(&2_u16.to_le_bytes());
    out.extend_from_slice(&machine.to_le_bytes());
    out.extend_from_slice(&1_u32.to_le_bytes());
    for value in [entry, 64, sections_at] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
    for value in [64, 56, segments.len() as u16, 64, 3, 2] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&headers);
    out.extend_from_slice(&body);
    out.extend_from_slice(&table);
    out.extend_from_slice(&names);
    let mut section = |name: u32, kind: u32, offset: u64, size: u64, link: u32, entry: u64| {
        out.extend_from_slice(&name.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        for value in [0, 0, offset, size] {
            out.extend_from_slice(&u64::to_le_bytes(value));
        }
        out.extend_from_slice(&link.to_le_bytes());
        out.extend_from_slice(&1_u32.to_le_bytes());
        for value in [8, entry] {
            out.extend_from_slice(&u64::to_le_bytes(value));
        }
    };
    section(0, 0, 0, 0, 0, 0);
    section(1, 2, table_at, table.len() as u64, 2, 24);
    section(9, 3, names_at, names.len() as u64, 0, 0);
    out
}

/// Address of the data segment of [`pd`].
pub const DATA: u64 = 0x21_0000;

/// Symbols of [`pd`].
pub const PD_SYMBOLS: [(&str, u64, u64); 12] = [
    ("microkit_name", DATA, 64),
    ("microkit_passive", DATA + 64, 1),
    ("microkit_irqs", DATA + 72, 8),
    ("microkit_notifications", DATA + 80, 8),
    ("microkit_pps", DATA + 88, 8),
    ("microkit_ioports", DATA + 96, 8),
    ("var_a", DATA + 104, 8),
    ("var_b", DATA + 112, 8),
    ("var_c", DATA + 0x2000, 8), // bss
    ("small", DATA + 120, 4),
    ("twice", DATA + 128, 8),
    ("twice", DATA + 136, 8),
];

/// A PD: code at 0x200000, data and bss at [`DATA`].
pub fn pd() -> Vec<u8> {
    let segments = [Segment(0x20_0000, vec![0xaa; 100], 100, 5), Segment(DATA, vec![0; 0x100], 0x3000, 6)];
    elf(183, 0x20_0000, &segments, &PD_SYMBOLS)
}

/// A kernel at 0x70000000 with a bss of 8 KiB.
pub fn kernel() -> Vec<u8> {
    let segments = [Segment(0x7000_0000, vec![0x11; 0x1800], 0x3800, 7)];
    elf(183, 0x7000_0000, &segments, &[("partita_boot_description", 0x7000_0800, 8)])
}

/// Files by name: `pd.elf`, `five` (5000 bytes), `empty`, and a large one of 3 MiB.
pub struct TestFiles;

impl Files for TestFiles {
    fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(match path {
            "pd.elf" => Some(pd()),
            "five" => Some((0..5000).map(|i| i as u8).collect()),
            "large" => Some(vec![0x5a; 3 << 20]),
            "empty" => Some(Vec::new()),
            _ => None,
        })
    }
}

/// Reads an SDF text.
pub fn parse(text: &str) -> Result<System, sdf::Error> {
    sdf::parse("test.system", text, &Board::qemu_virt(), &TestFiles)
}

/// Packs an SDF text; every PD is [`pd`].
pub fn packed(text: &str) -> Result<(System, Packed), String> {
    let system = parse(text).map_err(|error| error.to_string())?;
    let kernel = Elf::parse(&kernel(), None)?;
    let mut elfs = vec![Elf::parse(&pd(), None)?; system.pds.len()];
    elfs.push(Elf::parse(&pd(), None)?);
    let packed = pack::pack(&system, elfs, &kernel, &Board::qemu_virt())?;
    Ok((system, packed))
}

/// A description with `inner` in a protection domain `p` and `outer` beside it.
pub fn with(inner: &str, outer: &str) -> String {
    format!(
        "<system>\n<protection_domain name=\"p\" priority=\"10\"><program_image path=\"pd.elf\"/>\n{inner}\n\
         </protection_domain>\n{outer}\n</system>\n"
    )
}
