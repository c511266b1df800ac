//! Gives a guest an exception that the hardware did not: an Undefined Instruction for a trapped system register, which is
//! what a core without that register would do (Arm ARM D1.3, AArch64.TakeException to EL1).

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
        esr: (esr & (1 << 25)) as u64,
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
}
