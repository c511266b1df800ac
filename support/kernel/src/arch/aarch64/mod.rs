//! AArch64 with a GICv2, at EL2.
//!
//! PDs are threads at EL0 right under EL2: HCR_EL2.TGE routes all their exceptions here, and stage 2 is their only
//! translation. Guests run at EL1 with both stages. The kernel itself runs with interrupts masked, on one stack, at its
//! physical addresses.

mod arena;
mod cache;
mod entry;
mod fpu;
mod gic;
mod machine;
mod mmu;
mod regs;
mod start;
mod uart;
mod virt;

/// Physical memory that the kernel may touch: RAM of the board.
pub const RAM: core::ops::Range<u64> = 0x4000_0000..0x1_0000_0000;
