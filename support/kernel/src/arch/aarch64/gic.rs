//! GICv2: distributor and CPU interface. Lines are masked while their interrupt is handled by user code.

use super::regs::Block;

// SAFETY: QEMU virt's GICv2; the packer never maps these pages to anyone.
const DISTRIBUTOR: Block = unsafe { Block::new(0x0800_0000) };
// SAFETY: as above.
const CPU: Block = unsafe { Block::new(0x0801_0000) };

/// Distributor registers.
mod d {
    pub const CTLR: usize = 0x000;
    pub const TYPER: usize = 0x004;
    pub const ISENABLER: usize = 0x100;
    pub const ICENABLER: usize = 0x180;
    pub const ICPENDR: usize = 0x280;
    pub const ICACTIVER: usize = 0x380;
    pub const IPRIORITYR: usize = 0x400;
    pub const ITARGETSR: usize = 0x800;
    pub const ICFGR: usize = 0xc00;
}

/// CPU interface registers.
mod c {
    pub const CTLR: usize = 0x00;
    pub const PMR: usize = 0x04;
    pub const BPR: usize = 0x08;
    pub const IAR: usize = 0x0c;
    pub const EOIR: usize = 0x10;
}

/// Everything masked, level-triggered, to this CPU.
pub fn init() {
    DISTRIBUTOR.write(d::CTLR, 0);
    let words = (DISTRIBUTOR.read(d::TYPER) & 31) as usize + 1;
    for i in 0..words {
        DISTRIBUTOR.write(d::ICENABLER + 4 * i, u32::MAX);
        DISTRIBUTOR.write(d::ICPENDR + 4 * i, u32::MAX);
        DISTRIBUTOR.write(d::ICACTIVER + 4 * i, u32::MAX);
    }
    for i in 0..words * 8 {
        DISTRIBUTOR.write(d::IPRIORITYR + 4 * i, 0x8080_8080);
        if i >= 8 {
            DISTRIBUTOR.write(d::ITARGETSR + 4 * i, 0x0101_0101);
        }
    }
    for i in 2..words * 2 {
        DISTRIBUTOR.write(d::ICFGR + 4 * i, 0);
    }
    DISTRIBUTOR.write(d::CTLR, 1);
    CPU.write(c::PMR, 0xf0);
    CPU.write(c::BPR, 0);
    CPU.write(c::CTLR, 1);
}

/// Makes a line edge-triggered or level-triggered.
pub fn configure(irq: u32, edge: bool) {
    let (offset, shift) = (d::ICFGR + 4 * (irq / 16) as usize, irq % 16 * 2 + 1);
    let old = DISTRIBUTOR.read(offset);
    DISTRIBUTOR.write(offset, old & !(1 << shift) | u32::from(edge) << shift);
}

/// Lets a line through or not.
#[inline(always)]
pub fn enable(irq: u32, on: bool) {
    let base = if on { d::ISENABLER } else { d::ICENABLER };
    DISTRIBUTOR.write(base + 4 * (irq / 32) as usize, 1 << (irq % 32));
}

/// Takes the pending interrupt, if there is one.
#[inline(always)]
pub fn acknowledge() -> Option<u32> {
    let irq = CPU.read(c::IAR) & 0x3ff;
    (irq < 1020).then_some(irq)
}

/// Ends an interrupt taken before.
#[inline(always)]
pub fn end(irq: u32) {
    CPU.write(c::EOIR, irq);
}
