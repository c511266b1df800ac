//! Reads the syndrome (ESR_EL2) of a guest's exit: what the guest tried to do.
//!
//! seL4 delivers the raw register; its layout is Arm ARM D24.2.40 (ESR_EL2). Only what can be emulated completely is
//! decoded: an access without a valid instruction syndrome (LDP, write-back, vector, exclusive) is refused by name, never
//! guessed, because a wrong guess corrupts the guest's registers silently.

/// Width of an access in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// 1, 2, 4 or 8.
    pub const fn bytes(self) -> u64 {
        match self {
            Width::Byte => 1,
            Width::Half => 2,
            Width::Word => 4,
            Width::Double => 8,
        }
    }

    /// All bits that an access of this width carries.
    pub const fn mask(self) -> u64 {
        match self {
            Width::Byte => 0xff,
            Width::Half => 0xffff,
            Width::Word => 0xffff_ffff,
            Width::Double => u64::MAX,
        }
    }
}

/// One load or store of one general-purpose register that stage 2 refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Guest physical address.
    pub ipa: u64,
    /// Bytes moved.
    pub width: Width,
    /// Store.
    pub write: bool,
    /// Register number; 31 is XZR.
    pub register: u8,
    /// A load extends the sign.
    pub signed: bool,
    /// A load fills all 64 bits of the register (else the upper half becomes 0).
    pub wide: bool,
}

impl Access {
    /// What a load leaves in the register when the device answers `value`.
    pub const fn loaded(&self, value: u64) -> u64 {
        let value = value & self.width.mask();
        let unused = 64 - 8 * self.width.bytes() as u32;
        let value = if self.signed { (((value << unused) as i64) >> unused) as u64 } else { value };
        if self.wide { value } else { value & 0xffff_ffff }
    }

    /// What a store sends to the device when the register holds `register`.
    pub const fn stored(&self, register: u64) -> u64 {
        register & self.width.mask()
    }
}

/// Why an abort cannot be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// Not a data abort from a lower exception level.
    NotDataAbort,
    /// An instruction was to be fetched there.
    Fetch,
    /// Neither a translation nor a permission fault: a bus error or worse.
    Hardware,
    /// The guest's own page tables lie there.
    TableWalk,
    /// Cache maintenance by address.
    CacheMaintenance,
    /// No instruction syndrome: a pair, a vector, write-back or exclusive access.
    NoSyndrome,
}

impl Undecodable {
    /// For the log.
    pub const fn describe(self) -> &'static str {
        match self {
            Undecodable::NotDataAbort => "not a data abort",
            Undecodable::Fetch => "instruction fetch",
            Undecodable::Hardware => "bus error",
            Undecodable::TableWalk => "page table walk",
            Undecodable::CacheMaintenance => "cache maintenance",
            Undecodable::NoSyndrome => "access without syndrome (pair, vector, write-back or exclusive)",
        }
    }
}

/// Exception class.
const fn class(esr: u32) -> u32 {
    esr >> 26
}

/// Length of the instruction that was trapped, in bytes.
pub const fn instruction_length(esr: u32) -> u64 {
    if esr & (1 << 25) != 0 { 4 } else { 2 }
}

/// Decodes the syndrome of a VM fault at `ipa`.
pub const fn data_abort(esr: u32, ipa: u64) -> Result<Access, Undecodable> {
    match class(esr) {
        0x24 => {}
        0x20 => return Err(Undecodable::Fetch),
        _ => return Err(Undecodable::NotDataAbort),
    }
    // DFSC: 0b0001xx translation, 0b0011xx permission. seL4 gives the right IPA for these only.
    if !matches!(esr & 0x3c, 0x04 | 0x0c) {
        return Err(Undecodable::Hardware);
    }
    if esr & (1 << 7) != 0 {
        return Err(Undecodable::TableWalk);
    }
    if esr & (1 << 8) != 0 {
        return Err(Undecodable::CacheMaintenance);
    }
    if esr & (1 << 24) == 0 {
        return Err(Undecodable::NoSyndrome);
    }
    let width = match (esr >> 22) & 3 {
        0 => Width::Byte,
        1 => Width::Half,
        2 => Width::Word,
        _ => Width::Double,
    };
    Ok(Access {
        ipa,
        width,
        write: esr & (1 << 6) != 0,
        register: ((esr >> 16) & 0x1f) as u8,
        signed: esr & (1 << 21) != 0,
        wide: esr & (1 << 15) != 0,
    })
}

/// Whether this is a data access, not one of a table walk, that the rights of a page which is there forbid (Arm ARM
/// D24.2.40, DFSC 0b0011xx).
pub const fn is_forbidden(esr: u32) -> bool {
    class(esr) == 0x24 && esr & 0x3c == 0x0c && esr & (1 << 7) == 0
}

/// A trapped system register access (MRS or MSR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemRegister {
    /// Op0, Op1, CRn, CRm, Op2 as in the assembler's `S3_0_C12_C11_5`.
    pub name: (u8, u8, u8, u8, u8),
    /// General-purpose register; 31 is XZR.
    pub register: u8,
    /// MRS.
    pub read: bool,
}

/// What a VCPU fault reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Wait for interrupt.
    Wfi,
    /// Wait for event (also WFET and WFIT, which these cores do not have).
    Wfe,
    /// Secure monitor call from AArch64.
    Smc,
    /// System register access.
    System(SystemRegister),
    /// Anything else; the exception class.
    Other(u32),
}

/// Decodes the syndrome of a VCPU fault.
pub const fn trap(esr: u32) -> Trap {
    match class(esr) {
        0x01 if esr & 3 == 0 => Trap::Wfi,
        0x01 => Trap::Wfe,
        0x17 => Trap::Smc,
        0x18 => Trap::System(SystemRegister {
            name: (
                ((esr >> 20) & 3) as u8,
                ((esr >> 14) & 7) as u8,
                ((esr >> 10) & 0xf) as u8,
                ((esr >> 1) & 0xf) as u8,
                ((esr >> 17) & 7) as u8,
            ),
            register: ((esr >> 5) & 0x1f) as u8,
            read: esr & 1 != 0,
        }),
        other => Trap::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn store_word_to_read_only_page() {
        // STR W1, [x0] to a page that is read-only at stage 2, as seL4 reports it on a Cortex-A53.
        let access = data_abort(0x9381_004f, 0x0a00_0050).unwrap();
        let wanted = Access {
            ipa: 0x0a00_0050,
            width: Width::Word,
            write: true,
            register: 1,
            signed: false,
            wide: false,
        };
        assert_eq!(access, wanted);
        assert_eq!(access.stored(0xffff_ffff_0000_0007), 7);
    }

    #[test]
    fn refusals_are_named() {
        assert_eq!(data_abort(0x9200_0047, 0), Err(Undecodable::NoSyndrome));
        assert_eq!(data_abort(0x8200_0007, 0), Err(Undecodable::Fetch));
        assert_eq!(data_abort(0x9380_0010, 0), Err(Undecodable::Hardware));
        assert_eq!(data_abort(0x9380_0087, 0), Err(Undecodable::TableWalk));
        assert_eq!(data_abort(0x9200_0147, 0), Err(Undecodable::CacheMaintenance));
        assert_eq!(data_abort(0x5e00_0000, 0), Err(Undecodable::NotDataAbort));
    }

    #[test]
    fn loads_extend_as_the_architecture_says() {
        let load = |signed, wide, width| Access { ipa: 0, width, write: false, register: 0, signed, wide };
        assert_eq!(load(false, true, Width::Byte).loaded(0xfff), 0xff);
        assert_eq!(load(true, false, Width::Byte).loaded(0x80), 0xffff_ff80); // LDRSB Wt
        assert_eq!(load(true, true, Width::Half).loaded(0x8000), 0xffff_ffff_ffff_8000); // LDRSH Xt
        assert_eq!(load(true, true, Width::Word).loaded(0x8000_0000), 0xffff_ffff_8000_0000); // LDRSW
        assert_eq!(load(false, true, Width::Double).loaded(u64::MAX), u64::MAX);
    }

    #[test]
    fn traps() {
        assert_eq!(trap(0x07e0_0000), Trap::Wfi);
        assert_eq!(trap(0x07e0_0001), Trap::Wfe);
        assert_eq!(trap(0x5e00_0000), Trap::Smc);
        // MSR ICC_SGI1R_EL1, x2: S3_0_C12_C11_5.
        let esr = (0x18 << 26) | (1 << 25) | (3 << 20) | (5 << 17) | (12 << 10) | (2 << 5) | (11 << 1);
        let wanted = SystemRegister { name: (3, 0, 12, 11, 5), register: 2, read: false };
        assert_eq!(trap(esr), Trap::System(wanted));
        assert_eq!(trap(0x1fe0_0000), Trap::Other(0x07));
    }

    proptest! {
        #[test]
        fn decoding_is_total(esr: u32, ipa: u64, value: u64) {
            if let Ok(access) = data_abort(esr, ipa) {
                prop_assert_eq!(access.stored(value) & !access.width.mask(), 0);
                if !access.wide {
                    prop_assert_eq!(access.loaded(value) >> 32, 0);
                }
                if !access.signed {
                    prop_assert_eq!(access.loaded(value) & !access.width.mask(), 0);
                }
                prop_assert!(access.register < 32);
            }
            let _ = trap(esr);
        }
    }
}
