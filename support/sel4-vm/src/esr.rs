//! ESR_EL2 in words (Arm ARM, D24.2.40).

use core::fmt;

/// Exception syndrome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esr(pub u64);

impl Esr {
    /// Exception class.
    pub const fn class(self) -> u8 {
        (self.0 >> 26 & 0x3f) as u8
    }

    /// Instruction-specific syndrome.
    pub const fn iss(self) -> u32 {
        (self.0 & 0x1ff_ffff) as u32
    }

    /// The class in words.
    pub const fn class_name(self) -> &'static str {
        match self.class() {
            0x00 => "unknown instruction",
            0x01 => "WFI or WFE",
            0x07 => "FPU access",
            0x0e => "illegal execution state",
            0x15 => "SVC",
            0x16 => "HVC",
            0x17 => "SMC",
            0x18 => "system register access",
            0x20 => "instruction abort",
            0x22 => "misaligned PC",
            0x24 => "data abort",
            0x26 => "misaligned SP",
            0x2c => "floating-point exception",
            0x2f => "SError",
            0x30 => "breakpoint",
            0x32 => "single step",
            0x34 => "watchpoint",
            0x3c => "BRK",
            _ => "exception",
        }
    }

    /// For an abort: fault status in words.
    pub const fn status_name(self) -> &'static str {
        match self.0 & 0x3f {
            0x00..=0x03 => "address size fault",
            0x04..=0x07 => "not mapped",
            0x09..=0x0b => "access flag fault",
            0x0d..=0x0f => "permission fault",
            0x10 => "external abort",
            0x14..=0x17 => "external abort on a table walk",
            0x21 => "misaligned",
            0x30 => "TLB conflict",
            _ => "fault",
        }
    }

    /// For a data abort: whether it was a write.
    pub const fn is_write(self) -> bool {
        self.class() == 0x24 && self.0 >> 6 & 1 != 0
    }
}

impl fmt::Display for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (ESR {:#010x}", self.class_name(), self.0)?;
        match self.class() {
            0x20 => write!(f, ", {})", self.status_name()),
            0x24 => {
                write!(f, ", {}, {})", self.status_name(), if self.is_write() { "write" } else { "read" })
            }
            _ => f.write_str(")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Esr;

    #[test]
    fn aborts_and_traps_read_well() {
        assert_eq!(Esr(0x93df_8046).to_string(), "data abort (ESR 0x93df8046, not mapped, write)");
        assert_eq!(Esr(0x07e0_0000).to_string(), "WFI or WFE (ESR 0x07e00000)");
        assert_eq!(Esr(0x8200_000f).to_string(), "instruction abort (ESR 0x8200000f, permission fault)");
        assert_eq!(Esr(0xf200_0005).class_name(), "BRK");
    }
}
