//! Virtual processors.

use crate::sys::invocation_label as label;
use crate::{InvocationContext, Result, Word, cap::Tcb, cap::VCpu};

/// Registers of a virtual processor that upstream names. The kernel knows more (`PAR`, `CNTKCTL_EL1`): see the crate
/// sel4-vm.
#[repr(u64)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, non_camel_case_types, clippy::upper_case_acronyms)]
pub enum VCpuReg {
    SCTLR = 0,
    CPACR = 1,
    TTBR0 = 2,
    TTBR1 = 3,
    TCR = 4,
    MAIR = 5,
    AMAIR = 6,
    CIDR = 7,
    ACTLR = 8,
    AFSR0 = 9,
    AFSR1 = 10,
    ESR = 11,
    FAR = 12,
    VBAR = 14,
    TPIDR_EL1 = 15,
    SP_EL1 = 17,
    ELR_EL1 = 18,
    SPSR_EL1 = 19,
    CNTV_CTL = 20,
    CNTV_CVAL = 21,
    CNTVOFF = 22,
}

impl VCpuReg {
    /// The kernel's number.
    pub const fn into_sys(self) -> u64 {
        self as u64
    }
}

impl<C: InvocationContext> VCpu<C> {
    /// Makes `tcb` the thread that runs this processor.
    pub fn vcpu_set_tcb(self, tcb: Tcb) -> Result<()> {
        self.ask_one_cap(label::ARMVCPUSetTCB, tcb.bits())
    }

    /// Reads a register.
    pub fn vcpu_read_regs(self, field: VCpuReg) -> Result<Word> {
        self.ask_words(label::ARMVCPUReadReg, [field.into_sys()])
    }

    /// Writes a register.
    pub fn vcpu_write_regs(self, field: VCpuReg, value: Word) -> Result<()> {
        self.ask_words(label::ARMVCPUWriteReg, [field.into_sys(), value]).map(drop)
    }

    /// Says that the guest has dealt with a timer event.
    pub fn vcpu_ack_vppi(self, irq: Word) -> Result<()> {
        self.ask_words(label::ARMVCPUAckVPPI, [irq]).map(drop)
    }

    /// Writes a list register: `virq` pending.
    pub fn vcpu_inject_irq(self, virq: u16, priority: u8, group: u8, index: u8) -> Result<()> {
        let word =
            Word::from(virq) | Word::from(priority) << 16 | Word::from(group) << 24 | Word::from(index) << 32;
        self.ask_words(label::ARMVCPUInjectIRQ, [word]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Syscall, with_kernel};
    use crate::sys::invocation_label as label;
    use crate::{MessageInfo, VCpuReg, cap};

    #[test]
    fn inject_packs_one_word() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[1], MessageInfo::new(label::ARMVCPUInjectIRQ.into(), 0, 0, 1).bits());
            assert_eq!(call.x[2], 0x3_011f_03ff);
            call.x[1] = 0;
        };
        with_kernel(kernel, || assert_eq!(cap::VCpu::from_bits(330).vcpu_inject_irq(1023, 31, 1, 3), Ok(())));
    }

    #[test]
    fn read_returns_the_first_word() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[2], 22);
            call.x[1] = MessageInfo::new(0, 0, 0, 1).bits();
            call.x[2] = 0xabc;
        };
        with_kernel(kernel, || {
            assert_eq!(cap::VCpu::from_bits(330).vcpu_read_regs(VCpuReg::CNTVOFF), Ok(0xabc));
        });
    }
}
