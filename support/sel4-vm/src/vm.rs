//! The thread of a vCPU.

use sel4::{Result, UserContext, Word, cap::Tcb};

use crate::{MAX_ID, slot, thread};

/// SPSR of a vCPU that starts as the Linux boot protocol and PSCI CPU_ON want it: EL1h, all exceptions masked.
const SPSR_START: Word = 0x3c5;

/// The thread of vCPU `n` of this PD's virtual machine. It is stopped until started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vm {
    tcb: Tcb,
}

impl Vm {
    /// By the vCPU's id in the system description, at most 61.
    ///
    /// # Panics
    /// If the id is greater.
    pub const fn new(vcpu: usize) -> Self {
        assert!(vcpu <= MAX_ID);
        Self { tcb: Tcb::from_bits(slot::VM_TCBS + vcpu as Word) }
    }

    /// Its capability.
    pub const fn tcb(&self) -> Tcb {
        self.tcb
    }

    /// Starts the vCPU at `pc` in EL1 with exceptions masked, x0–x3 as given and every other register zero. System
    /// registers are the VCPU's: see [`crate::Vcpu::reset`].
    pub fn start(&self, pc: Word, arguments: [Word; 4]) -> Result<()> {
        let mut context = UserContext::default();
        *context.pc_mut() = pc;
        *context.spsr_mut() = SPSR_START;
        for (i, argument) in arguments.into_iter().enumerate() {
            *context.gpr_mut(i) = argument;
        }
        self.tcb.tcb_write_all_registers(true, &mut context)
    }

    /// Goes on at `pc` after a fault, by Send: about 524 instructions, and the reply object is given up on the way. Followed
    /// by a receive that carries something else ([`crate::event::notify_recv`]) it is the cheapest way out of a doorbell.
    pub fn resume_at(&self, pc: Word) {
        thread::resume_at(self.tcb, pc);
    }

    /// [`Vm::resume_at`] with a result: about 586 instructions.
    pub fn resume_at_checked(&self, pc: Word) -> Result<()> {
        thread::resume_at_checked(self.tcb, pc)
    }

    /// Sets the program counter and leaves the vCPU blocked in its fault, so that a reply goes on there: about 524.
    pub fn set_pc(&self, pc: Word) {
        thread::set_pc(self.tcb, pc);
    }

    /// pc, sp, spsr and x0: 599 instructions. Touches no message register in memory.
    pub fn read_four(&self) -> Result<[Word; 4]> {
        thread::read_four(self.tcb)
    }

    /// Reads the first `count` registers (36: all, 886 instructions). See [`crate::register_count`].
    pub fn read_registers(&self, count: usize) -> Result<UserContext> {
        self.tcb.tcb_read_registers(false, count.clamp(1, thread::ALL) as Word)
    }

    /// Writes all registers of a stopped or faulted vCPU, and starts it if `resume`.
    pub fn write_registers(&self, context: &mut UserContext, resume: bool) -> Result<()> {
        self.tcb.tcb_write_all_registers(resume, context)
    }

    /// Reads as many registers as `registers` holds, in the kernel's order (see [`crate::register_count`]).
    pub fn read_into(&self, registers: &mut [Word]) -> Result<usize> {
        thread::read_into(self.tcb, registers)
    }

    /// Writes the first registers, in the kernel's order, and goes on if `resume`; by Send.
    pub fn write_by_send(&self, registers: &[Word], resume: bool) {
        thread::write_by_send(self.tcb, registers, resume);
    }

    /// Changes the first `count` registers of a faulted vCPU and goes on: a read and a write.
    pub fn update_and_resume(&self, count: usize, change: impl FnOnce(&mut UserContext)) -> Result<()> {
        thread::update(self.tcb, count, change)
    }

    /// Completes a trapped load: puts `value` into register `gpr` (31: nowhere) and goes on at `pc`.
    pub fn complete_load(&self, gpr: usize, value: Word, pc: Word) -> Result<()> {
        if gpr > 30 {
            return self.resume_at_checked(pc);
        }
        self.update_and_resume(crate::register_count(gpr), |context| {
            *context.gpr_mut(gpr) = value;
            *context.pc_mut() = pc;
        })
    }

    /// Goes on where it was: about 786 instructions with the switch.
    pub fn resume(&self) -> Result<()> {
        self.tcb.tcb_resume()
    }

    /// [`Vm::resume`] without a result.
    pub fn resume_by_send(&self) {
        thread::resume_by_send(self.tcb);
    }

    /// Stops it, wherever it is. The registers can be read and written; [`Vm::resume`] goes on.
    pub fn suspend(&self) -> Result<()> {
        self.tcb.tcb_suspend()
    }

    /// [`Vm::suspend`] without a result.
    pub fn suspend_by_send(&self) {
        thread::suspend_by_send(self.tcb);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use sel4::MessageInfo;
    use sel4::fake::{Syscall, with_kernel};
    use sel4::sys::{invocation_label as label, syscall};

    use super::*;

    #[test]
    fn the_cheap_way_on_is_one_send_in_registers() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!((call.number, call.x[0]), (syscall::SEND, 267));
            assert_eq!(call.x[1], MessageInfo::new(label::TCBWriteRegisters.into(), 0, 0, 3).bits());
            assert_eq!(call.x[2..5], [1, 1, 0x4008_0004]);
            assert!(call.ipc_buffer.is_none());
        };
        with_kernel(kernel, || {
            Vm::new(1).resume_at(0x4008_0004);
            assert_eq!(sel4::fake::calls(), 1);
        });
    }

    #[test]
    fn a_vcpu_starts_in_el1_with_its_arguments() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[0], 266);
            assert_eq!(call.x[2..6], [1, 36, 0x4020_0000, 0]);
            assert_eq!(call.ipc_buffer.as_ref().unwrap().msg_regs()[4..9], [0x3c5, 0x4800_0000, 0, 0, 9]);
            call.x[1] = 0;
        };
        with_kernel(kernel, || assert_eq!(Vm::new(0).start(0x4020_0000, [0x4800_0000, 0, 0, 9]), Ok(())));
    }

    #[test]
    fn a_load_is_completed_by_a_read_and_a_write_of_no_more_than_needed() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let seen = calls.clone();
        let kernel = move |call: &mut Syscall<'_>| {
            let buffer = call.ipc_buffer.as_mut().unwrap();
            let mut message = vec![call.x[2], call.x[3], call.x[4], call.x[5]];
            message.extend(&buffer.msg_regs()[4..9]);
            let length = MessageInfo::from_bits(call.x[1]).length();
            seen.borrow_mut().push((call.x[1] >> 12, message[..length.min(9)].to_vec()));
            // pc, sp, spsr, x0, x1, x2
            call.x[1] = MessageInfo::new(0, 0, 0, 6).bits();
            call.x[2..6].copy_from_slice(&[0x100, 0, 0x3c5, 10]);
            buffer.msg_regs_mut()[4..6].copy_from_slice(&[11, 12]);
        };
        with_kernel(kernel, || assert_eq!(Vm::new(0).complete_load(2, 0xabcd, 0x104), Ok(())));
        let calls = calls.borrow();
        assert_eq!(calls[0], (label::TCBReadRegisters.into(), vec![0, 6]));
        assert_eq!(calls[1].0, u64::from(label::TCBWriteRegisters));
        assert_eq!(calls[1].1, [1, 6, 0x104, 0, 0x3c5, 10, 11, 0xabcd, 0]);
    }

    #[test]
    fn a_prefix_of_the_registers_goes_by_send_and_comes_by_call() {
        let kernel = |call: &mut Syscall<'_>| {
            let buffer = call.ipc_buffer.as_mut().unwrap();
            match call.number {
                syscall::SEND => {
                    assert_eq!(MessageInfo::from_bits(call.x[1]).length(), 7);
                    assert_eq!(call.x[2..6], [1, 5, 0x100, 0]);
                    assert_eq!(buffer.msg_regs()[4..7], [0x3c5, 8, 9]);
                }
                _ => {
                    assert_eq!(call.x[2..4], [0, 5]);
                    call.x[1] = MessageInfo::new(0, 0, 0, 5).bits();
                    call.x[2..6].copy_from_slice(&[1, 2, 3, 4]);
                    buffer.msg_regs_mut()[4] = 5;
                }
            }
        };
        with_kernel(kernel, || {
            Vm::new(0).write_by_send(&[0x100, 0, 0x3c5, 8, 9], true);
            let mut registers = [0; 5];
            assert_eq!(Vm::new(0).read_into(&mut registers), Ok(5));
            assert_eq!(registers, [1, 2, 3, 4, 5]);
        });
    }

    #[test]
    fn a_load_into_the_zero_register_only_goes_on() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[2..5], [1, 1, 0x104]);
            call.x[1] = 0;
        };
        with_kernel(kernel, || assert_eq!(Vm::new(0).complete_load(31, 1, 0x104), Ok(())));
    }
}
