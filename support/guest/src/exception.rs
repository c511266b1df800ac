//! Gives a guest an exception that the hardware did not (Arm ARM D1.3, AArch64.TakeException to EL1): an Undefined
//! Instruction for a trapped system register, which is what a core without that register would do, and a synchronous
//! external abort for a store that the machine refuses, which is what a bus would answer.

/// PSTATE after an exception to EL1: EL1h with D, A, I and F masked.
pub const EL1H_MASKED: u64 = 0x3c5;

/// What to write where for the guest to find itself in its exception vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// New program counter.
    pub pc: u64,
    /// New PSTATE.
    pub pstate: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
}

/// An Undefined Instruction exception at `pc`, where `pstate` and `vbar` (VBAR_EL1) are the guest's and `esr` tells the
/// length of the instruction.
pub const fn undefined(pc: u64, pstate: u64, vbar: u64, esr: u32) -> Entry {
    enter(pc, pstate, vbar, esr & INSTRUCTION_LENGTH)
}

/// A Data Abort exception at `pc` for the access that `esr` (ESR_EL2 of a data abort) describes: synchronous external abort,
/// not on a table walk. FAR_EL1 is told invalid (FnV), as a bus may leave it: the faulting virtual address is not known.
pub const fn external_abort(pc: u64, pstate: u64, vbar: u64, esr: u32) -> Entry {
    const WRITE: u32 = 1 << 6;
    const CACHE_MAINTENANCE: u32 = 1 << 8;
    const FAR_NOT_VALID: u32 = 1 << 10;
    const SYNCHRONOUS_EXTERNAL: u32 = 0x10;
    // EC: Data Abort from a lower exception level, or from this one.
    let class: u32 = if pstate & 0xf == 0 { 0x24 } else { 0x25 };
    let kept = esr & (INSTRUCTION_LENGTH | WRITE | CACHE_MAINTENANCE);
    enter(pc, pstate, vbar, class << 26 | kept | FAR_NOT_VALID | SYNCHRONOUS_EXTERNAL)
}

/// ESR_ELx.IL.
const INSTRUCTION_LENGTH: u32 = 1 << 25;

/// A synchronous exception to EL1 with this syndrome.
const fn enter(pc: u64, pstate: u64, vbar: u64, esr: u32) -> Entry {
    let offset = match pstate & 0x1f {
        0x04 => 0x000,                     // EL1t
        0x05 => 0x200,                     // EL1h
        mode if mode & 0x10 == 0 => 0x400, // EL0, AArch64
        _ => 0x600,                        // EL0, AArch32
    };
    Entry {
        pc: (vbar & !0x7ff).wrapping_add(offset),
        pstate: EL1H_MASKED,
        elr: pc,
        spsr: pstate,
        esr: esr as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_by_origin() {
        let from = |pstate| undefined(0x4008_0000, pstate, 0xffff_8000_0801_0800, 0x6200_0000);
        let entry = from(0x2000_00c5);
        assert_eq!(entry.pc, 0xffff_8000_0801_0a00);
        assert_eq!((entry.elr, entry.spsr, entry.pstate), (0x4008_0000, 0x2000_00c5, 0x3c5));
        assert_eq!(entry.esr, 1 << 25); // EC 0: unknown reason, 32-bit instruction
        assert_eq!(from(0x4).pc & 0x7ff, 0x000);
        assert_eq!(from(0x0).pc & 0x7ff, 0x400);
        assert_eq!(from(0x10).pc & 0x7ff, 0x600);
    }

    #[test]
    fn an_external_abort_tells_what_the_access_was_and_not_where() {
        // A store of x7, permission fault of level 3.
        let from = |pstate, esr| external_abort(0x1000, pstate, 0x8000, esr).esr;
        assert_eq!(from(0x3c5, 0x9387_004f), 0x25 << 26 | 1 << 25 | 1 << 10 | 1 << 6 | 0x10);
        assert_eq!(from(0x0, 0x9387_004f), 0x24 << 26 | 1 << 25 | 1 << 10 | 1 << 6 | 0x10);
        assert_eq!(from(0x10, 0x9000_010f), 0x24 << 26 | 1 << 10 | 1 << 8 | 0x10);
        let entry = external_abort(0x1000, 0x5, 0x8000, 0x9387_004f);
        assert_eq!((entry.pc, entry.elr, entry.spsr, entry.pstate), (0x8200, 0x1000, 0x5, EL1H_MASKED));
    }
}
