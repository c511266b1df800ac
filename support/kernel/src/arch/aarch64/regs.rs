//! System registers and device registers.

/// Reads a system register.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a system register that exists at EL2 changes no memory.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register. Not `nomem`: some of them change what memory accesses mean.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the kernel writes only registers of lower exception levels and its own set-up, with values that keep
        // its own translation and vectors valid.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags));
        }
    }};
}

/// Instruction synchronisation barrier.
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Data synchronisation barrier.
pub fn dsb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) }
}

pub(crate) use {read, write};

/// A device's registers.
#[derive(Clone, Copy)]
pub struct Block(usize);

impl Block {
    /// The device at `base`.
    ///
    /// # Safety
    /// `base` is a device of this board that only the kernel drives, and accesses to it have no effect on memory that
    /// Rust knows of.
    pub const unsafe fn new(base: usize) -> Self {
        Block(base)
    }
    /// Reads the register at `offset`.
    #[inline(always)]
    pub fn read(self, offset: usize) -> u32 {
        // SAFETY: `new`.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.0 + offset).read_volatile() }
    }
    /// Writes the register at `offset`.
    #[inline(always)]
    pub fn write(self, offset: usize, value: u32) {
        // SAFETY: `new`.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(self.0 + offset).write_volatile(value) }
    }
}
