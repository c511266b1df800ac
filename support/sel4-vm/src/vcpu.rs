//! System registers, virtual interrupts and the virtual timer of a vCPU.

use sel4::sys::invocation_label as label;
use sel4::{MessageInfo, Result, Word, cap::VCpu};

use crate::{MAX_ID, check, slot};

/// A system register that the kernel keeps for a vCPU. Upstream's `VCpuReg` lacks `Par` and `Cntkctl`, and has `Vmpidr` only
/// on multiprocessor kernels.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum VcpuField {
    Sctlr = 0,
    Cpacr = 1,
    Ttbr0 = 2,
    Ttbr1 = 3,
    Tcr = 4,
    Mair = 5,
    Amair = 6,
    Cidr = 7,
    Actlr = 8,
    Afsr0 = 9,
    Afsr1 = 10,
    Esr = 11,
    Far = 12,
    Par = 13,
    Vbar = 14,
    TpidrEl1 = 15,
    Vmpidr = 16,
    SpEl1 = 17,
    ElrEl1 = 18,
    SpsrEl1 = 19,
    CntvCtl = 20,
    CntvCval = 21,
    Cntvoff = 22,
    Cntkctl = 23,
}

/// SCTLR_EL1 of a fresh VCPU, MMU and caches off.
const SCTLR_RESET: Word = 0x34d5_8820;

/// Registers of a fresh VCPU that are not zero, and those that are.
const RESET: [(VcpuField, Word); 19] = [
    (VcpuField::CntvCtl, 0), // first: no timer event of the past
    (VcpuField::Sctlr, SCTLR_RESET),
    (VcpuField::Cpacr, 0),
    (VcpuField::Ttbr0, 0),
    (VcpuField::Ttbr1, 0),
    (VcpuField::Tcr, 0),
    (VcpuField::Mair, 0),
    (VcpuField::Amair, 0),
    (VcpuField::Cidr, 0),
    (VcpuField::Esr, 0),
    (VcpuField::Far, 0),
    (VcpuField::Par, 0),
    (VcpuField::Vbar, 0),
    (VcpuField::TpidrEl1, 0),
    (VcpuField::SpEl1, 0),
    (VcpuField::ElrEl1, 0),
    (VcpuField::SpsrEl1, 0),
    (VcpuField::CntvCval, 0),
    (VcpuField::Cntkctl, 0),
];

/// vCPU `n` of this PD's virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vcpu {
    cap: VCpu,
}

impl Vcpu {
    /// By its id in the system description, at most 61.
    ///
    /// # Panics
    /// If the id is greater.
    pub const fn new(vcpu: usize) -> Self {
        assert!(vcpu <= MAX_ID);
        Self { cap: VCpu::from_bits(slot::VCPUS + vcpu as Word) }
    }

    /// Its capability.
    pub const fn cap(&self) -> VCpu {
        self.cap
    }

    /// Reads a register: 533 instructions. On a multiprocessor kernel, of a vCPU of another core this is what was last
    /// saved.
    pub fn read_reg(&self, field: VcpuField) -> Result<Word> {
        self.read_reg_number(field as Word)
    }

    /// [`Vcpu::read_reg`] by number; 24 and beyond are `InvalidArgument`.
    pub fn read_reg_number(&self, field: Word) -> Result<Word> {
        let answer = self.cap.call_with_mrs(info(label::ARMVCPUReadReg, 1), [field]);
        check(&answer.info)?;
        Ok(answer.msg[0])
    }

    /// Writes a register: 525 instructions.
    pub fn write_reg(&self, field: VcpuField, value: Word) -> Result<()> {
        self.write_reg_number(field as Word, value)
    }

    /// [`Vcpu::write_reg`] by number; 24 and beyond are `InvalidArgument`.
    pub fn write_reg_number(&self, field: Word, value: Word) -> Result<()> {
        check(&self.cap.call_with_mrs(info(label::ARMVCPUWriteReg, 2), [field, value]).info)
    }

    /// [`Vcpu::write_reg`] without a result, by Send: about 60 instructions less.
    pub fn write_reg_by_send(&self, field: VcpuField, value: Word) {
        self.cap.send_with_mrs(info(label::ARMVCPUWriteReg, 2), [field as Word, value]);
    }

    /// Gives the system registers the values of a fresh VCPU, for a restart of the guest. VMPIDR, ACTLR and CNTVOFF keep
    /// what they have: they say which processor it is, not what the guest did.
    pub fn reset(&self) -> Result<()> {
        RESET.iter().try_for_each(|(field, value)| self.write_reg(*field, *value))
    }

    /// Writes list register `index`: interrupt `virq` pending, with EOI maintenance. 538 instructions. Only an *active* list
    /// register refuses (`DeleteFirst`); a pending one is overwritten. It never wakes a blocked vCPU.
    pub fn inject_irq(&self, virq: u16, priority: u8, group: u8, index: u8) -> Result<()> {
        let word = inject_word(virq, priority, group, index);
        check(&self.cap.call_with_mrs(info(label::ARMVCPUInjectIRQ, 1), [word]).info)
    }

    /// [`Vcpu::inject_irq`] without a result, by Send: 476 instructions. For a caller that keeps track of the list registers
    /// and so knows that the kernel will not refuse.
    pub fn inject_irq_by_send(&self, virq: u16, priority: u8, group: u8, index: u8) {
        self.cap.send_with_mrs(info(label::ARMVCPUInjectIRQ, 1), [inject_word(virq, priority, group, index)]);
    }

    /// Unmasks the virtual timer's interrupt (27) at the vCPU's next run. To be called when the guest has ended it: earlier,
    /// while the timer still asserts it, the same event comes back at once, for ever.
    pub fn ack_vppi(&self, irq: Word) -> Result<()> {
        check(&self.cap.call_with_mrs(info(label::ARMVCPUAckVPPI, 1), [irq]).info)
    }

    /// [`Vcpu::ack_vppi`] without a result, by Send.
    pub fn ack_vppi_by_send(&self, irq: Word) {
        self.cap.send_with_mrs(info(label::ARMVCPUAckVPPI, 1), [irq]);
    }
}

fn info(label: u32, length: usize) -> MessageInfo {
    MessageInfo::new(label.into(), 0, 0, length)
}

fn inject_word(virq: u16, priority: u8, group: u8, index: u8) -> Word {
    Word::from(virq) | Word::from(priority) << 16 | Word::from(group) << 24 | Word::from(index) << 32
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use sel4::Error;
    use sel4::fake::{Syscall, with_kernel};
    use sel4::sys::syscall;

    use super::*;

    #[test]
    fn our_numbers_are_upstreams() {
        use sel4::VCpuReg;
        let pairs = [
            (VcpuField::Sctlr, VCpuReg::SCTLR),
            (VcpuField::Cpacr, VCpuReg::CPACR),
            (VcpuField::Vbar, VCpuReg::VBAR),
            (VcpuField::SpEl1, VCpuReg::SP_EL1),
            (VcpuField::CntvCtl, VCpuReg::CNTV_CTL),
            (VcpuField::Cntvoff, VCpuReg::CNTVOFF),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours as u64, theirs as u64);
        }
    }

    #[test]
    fn injection_by_send_is_the_same_word() {
        let words = Rc::new(RefCell::new(Vec::new()));
        let seen = words.clone();
        let kernel = move |call: &mut Syscall<'_>| {
            seen.borrow_mut().push((call.number, call.x[0], call.x[1], call.x[2]));
            call.x[1] = MessageInfo::new(8, 0, 0, 0).bits();
        };
        with_kernel(kernel, || {
            assert_eq!(Vcpu::new(2).inject_irq(27, 20, 1, 3), Err(Error::DeleteFirst));
            Vcpu::new(2).inject_irq_by_send(27, 20, 1, 3);
        });
        let tag = info(label::ARMVCPUInjectIRQ, 1).bits();
        let word = 0x3_0114_001b;
        assert_eq!(*words.borrow(), [(syscall::CALL, 332, tag, word), (syscall::SEND, 332, tag, word)]);
    }

    #[test]
    fn reset_stops_the_timer_first_and_at_the_first_refusal() {
        let fields = Rc::new(RefCell::new(Vec::new()));
        let seen = fields.clone();
        let kernel = move |call: &mut Syscall<'_>| {
            seen.borrow_mut().push(call.x[2]);
            call.x[1] = MessageInfo::new(u64::from(seen.borrow().len() == 3), 0, 0, 0).bits();
        };
        assert_eq!(with_kernel(kernel, || Vcpu::new(0).reset()), Err(Error::InvalidArgument));
        assert_eq!(*fields.borrow(), [20, 0, 1]);
    }
}
