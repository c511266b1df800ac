//! The kernel's own address space: everything at its physical address, 4 GiB of it; its text is not writable and nothing
//! else is executable.

use core::arch::asm;
use core::cell::UnsafeCell;

use super::regs::{dsb, isb, write};

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: written once at boot, by one CPU, before they are used.
unsafe impl Sync for Table {}

impl Table {
    const fn empty() -> Self {
        Table(UnsafeCell::new([0; 512]))
    }
    fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

static LEVEL1: Table = Table::empty();
static LEVEL2: Table = Table::empty();
static LEVEL3: Table = Table::empty();

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
}

mod bits {
    pub const BLOCK: u64 = 1;
    pub const TABLE_OR_PAGE: u64 = 3;
    pub const NORMAL: u64 = 1 << 2 | 3 << 8 | 1 << 10;
    pub const DEVICE: u64 = 1 << 10;
    pub const READ_ONLY: u64 = 1 << 7;
    pub const NO_EXECUTE: u64 = 1 << 54;
}

/// MAIR_EL2: 0 device nGnRnE, 1 normal write-back.
const MAIR: u64 = 0xff00;
/// TCR_EL2: 32-bit addresses, 4 KiB granule, inner-shareable write-back walks, 40-bit physical addresses.
const TCR: u64 = 1 << 31 | 1 << 23 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 32;
/// SCTLR_EL2: reserved bits, MMU, caches, stack alignment, writable is not executable.
const SCTLR: u64 = 0x30c5_0830 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;

/// Turns translation and caches on.
pub fn init() {
    let (start, text, rodata) =
        (&raw const __image_start as u64, &raw const __text_end as u64, &raw const __rodata_end as u64);
    let gigabyte = start >> 30;
    let large = start >> 21 << 21;
    // SAFETY: the tables are not in use yet, and nothing else refers to them.
    let (level1, level2, level3) =
        unsafe { (&mut *LEVEL1.0.get(), &mut *LEVEL2.0.get(), &mut *LEVEL3.0.get()) };
    for (address, entry) in (0u64..4).map(|i| i << 30).zip(level1.iter_mut()) {
        *entry = address
            | match address >> 30 {
                0 => bits::BLOCK | bits::DEVICE | bits::NO_EXECUTE,
                i if i == gigabyte => 0,
                _ => bits::BLOCK | bits::NORMAL | bits::NO_EXECUTE,
            };
    }
    level1[gigabyte as usize & 3] = LEVEL2.address() | bits::TABLE_OR_PAGE;
    for (i, entry) in (0u64..).zip(level2.iter_mut()) {
        let address = gigabyte << 30 | i << 21;
        *entry = if address == large {
            LEVEL3.address() | bits::TABLE_OR_PAGE
        } else {
            address | bits::BLOCK | bits::NORMAL | bits::NO_EXECUTE
        };
    }
    for (i, entry) in (0u64..).zip(level3.iter_mut()) {
        let address = large | i << 12;
        let access = if (start..text).contains(&address) {
            bits::READ_ONLY
        } else if (text..rodata).contains(&address) {
            bits::READ_ONLY | bits::NO_EXECUTE
        } else {
            bits::NO_EXECUTE
        };
        *entry = address | bits::TABLE_OR_PAGE | bits::NORMAL | access;
    }
    write!("mair_el2", MAIR);
    write!("tcr_el2", TCR);
    write!("ttbr0_el2", LEVEL1.address());
    dsb();
    // SAFETY: discards translations and instructions cached before; the new ones map this code where it is.
    unsafe { asm!("tlbi alle2", "ic iallu", options(nostack, preserves_flags)) };
    dsb();
    isb();
    write!("sctlr_el2", SCTLR);
    isb();
}
