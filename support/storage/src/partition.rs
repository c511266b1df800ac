//! From what partita.json says of a disk to a [`Window`].

use crate::window::Window;
use crate::{gpt, mbr};

/// How a partition is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector<'a> {
    /// GPT partition name.
    Label(&'a str),
    /// GPT partition number, from 1.
    Gpt(u32),
    /// MBR partition number: 1 to 4 primary, from 5 logical.
    Mbr(u32),
    /// Plain sectors; without a count, to the end of the device.
    Range {
        /// First sector.
        first: u64,
        /// Sectors.
        count: Option<u64>,
    },
}

/// Why there is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// The device did not read.
    Read,
    /// There is no partition table of that kind, or none of its copies is intact.
    NoTable,
    /// No such partition.
    NotFound,
    /// Several partitions have this name.
    Ambiguous,
    /// The partition is empty or reaches over the end of the device.
    Range,
}

impl core::fmt::Display for TableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            TableError::Read => "the device does not read",
            TableError::NoTable => "no intact partition table",
            TableError::NotFound => "no such partition",
            TableError::Ambiguous => "several partitions have this name",
            TableError::Range => "empty, or over the end of the device",
        })
    }
}

/// Reads sectors and waits for them.
pub trait ReadSectors {
    /// Fills `into`, whose length is a multiple of 512, from `sector` on.
    fn read(&mut self, sector: u64, into: &mut [u8]) -> Result<(), TableError>;
    /// Sectors of the device.
    fn sectors(&self) -> u64;
    /// Logical block of the device in bytes: the unit of GPT and MBR.
    fn block_size(&self) -> u32;
}

/// Finds the window that `selector` names.
pub fn resolve(device: &mut impl ReadSectors, selector: Selector<'_>) -> Result<Window, TableError> {
    let sectors = device.sectors();
    match selector {
        Selector::Label(label) => gpt::find(device, gpt::Wanted::Label(label)),
        Selector::Gpt(number) => gpt::find(device, gpt::Wanted::Number(number)),
        Selector::Mbr(number) => mbr::find(device, number),
        Selector::Range { first, count } => {
            let count = count.unwrap_or(sectors.saturating_sub(first));
            Window::new(first, count, sectors).ok_or(TableError::Range)
        }
    }
}
