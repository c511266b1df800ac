//! Invocations of kernel objects: a Call with a label, the arguments as message registers, and an error as the answer.

use crate::sys::invocation_label as label;
use crate::{
    Cap, CapType, Error, InvocationContext, IpcBuffer, MessageInfo, Result, UserContext, Word, arch,
    cap::{Endpoint, IrqHandler, Notification, SchedContext, Tcb},
};

/// Time in microseconds, as the kernel counts it.
pub type Time = u64;

/// Greatest number of registers in a [`UserContext`].
const REGISTERS: usize = UserContext::WORDS;

impl<T: CapType, C: InvocationContext> Cap<T, C> {
    /// Calls with arguments written by `f` (which returns how many extra capabilities and message registers it wrote), and
    /// hands what came back to `g`.
    fn ask<R>(
        self,
        label: u32,
        f: impl FnOnce(&mut IpcBuffer) -> (usize, usize),
        g: impl FnOnce(&MessageInfo, &IpcBuffer) -> R,
    ) -> R {
        self.invoke(|cptr, buffer| {
            let (caps, length) = f(buffer);
            let info = MessageInfo::new(label.into(), 0, caps, length);
            let regs = buffer.fast();
            let got = arch::call(cptr.bits(), info.bits(), regs, buffer);
            buffer.set_fast(got.regs);
            g(&MessageInfo::from_bits(got.info), buffer)
        })
    }

    /// A call with at most four arguments, all in registers, and at most one result.
    pub(crate) fn ask_words<const N: usize>(self, label: u32, words: [Word; N]) -> Result<Word> {
        const { assert!(N <= 4) };
        self.ask(
            label,
            |buffer| {
                buffer.msg_regs_mut()[..N].copy_from_slice(&words);
                (0, N)
            },
            |info, buffer| Error::with_first(info, buffer.msg_regs()[0]),
        )
    }

    fn ask_caps<const K: usize, const N: usize>(
        self,
        label: u32,
        caps: [Word; K],
        words: [Word; N],
    ) -> Result<()> {
        const { assert!(K <= 3 && N <= 4) };
        self.ask(
            label,
            |buffer| {
                buffer.caps_or_badges_mut()[..K].copy_from_slice(&caps);
                buffer.msg_regs_mut()[..N].copy_from_slice(&words);
                (K, N)
            },
            |info, _| Error::from_reply(info),
        )
    }

    pub(crate) fn ask_one_cap(self, label: u32, cap: Word) -> Result<()> {
        self.ask_caps(label, [cap], [])
    }

    pub(crate) fn ask_plain(self, label: u32) -> Result<()> {
        self.ask_words(label, []).map(drop)
    }
}

/// Builds the flags of [`Tcb::tcb_set_flags`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcbFlagsBuilder(Word);

impl TcbFlagsBuilder {
    /// No flag.
    pub fn new() -> Self {
        Self(0)
    }

    /// The flags.
    pub fn build(self) -> Word {
        self.0
    }

    /// FPU instructions fault.
    pub fn fpu_disabled(self, val: bool) -> Self {
        Self(self.0 & !1 | Word::from(val))
    }
}

impl<C: InvocationContext> Tcb<C> {
    /// Reads the first `count` registers, stopping the thread first if `suspend`.
    pub fn tcb_read_registers(self, suspend: bool, count: Word) -> Result<UserContext> {
        self.ask(
            label::TCBReadRegisters,
            |buffer| {
                buffer.msg_regs_mut()[..2].copy_from_slice(&[suspend.into(), count]);
                (0, 2)
            },
            |info, buffer| {
                Error::from_reply(info)?;
                let mut context = UserContext::default();
                let length = info.length().min(REGISTERS);
                context.words_mut()[..length].copy_from_slice(&buffer.msg_regs()[..length]);
                Ok(context)
            },
        )
    }

    /// Reads all registers.
    pub fn tcb_read_all_registers(self, suspend: bool) -> Result<UserContext> {
        self.tcb_read_registers(suspend, REGISTERS as Word)
    }

    /// Writes the first `count` registers, starting the thread then if `resume`.
    pub fn tcb_write_registers(self, resume: bool, count: Word, regs: &mut UserContext) -> Result<()> {
        self.ask(
            label::TCBWriteRegisters,
            |buffer| {
                let words = buffer.msg_regs_mut();
                words[..2].copy_from_slice(&[resume.into(), count]);
                words[2..2 + REGISTERS].copy_from_slice(regs.words());
                (0, 2 + REGISTERS)
            },
            |info, _| Error::from_reply(info),
        )
    }

    /// Writes all registers.
    pub fn tcb_write_all_registers(self, resume: bool, regs: &mut UserContext) -> Result<()> {
        self.tcb_write_registers(resume, REGISTERS as Word, regs)
    }

    /// Starts the thread; one that was blocked does again what it was blocked in.
    pub fn tcb_resume(self) -> Result<()> {
        self.ask_plain(label::TCBResume)
    }

    /// Stops the thread.
    pub fn tcb_suspend(self) -> Result<()> {
        self.ask_plain(label::TCBSuspend)
    }

    /// Sets the priority, at most the authority's maximum controlled priority.
    pub fn tcb_set_priority(self, authority: Tcb, priority: Word) -> Result<()> {
        self.ask_caps(label::TCBSetPriority, [authority.bits()], [priority])
    }

    /// Sets the maximum controlled priority.
    pub fn tcb_set_mc_priority(self, authority: Tcb, mcp: Word) -> Result<()> {
        self.ask_caps(label::TCBSetMCPriority, [authority.bits()], [mcp])
    }

    /// Sets all scheduling parameters.
    pub fn tcb_set_sched_params(
        self,
        authority: Tcb,
        mcp: Word,
        priority: Word,
        sched_context: SchedContext,
        fault_ep: Endpoint,
    ) -> Result<()> {
        let caps = [authority.bits(), sched_context.bits(), fault_ep.bits()];
        self.ask_caps(label::TCBSetSchedParams, caps, [mcp, priority])
    }

    /// Sets the endpoint that learns of exhausted budgets.
    pub fn tcb_set_timeout_endpoint(self, timeout_endpoint: Endpoint) -> Result<()> {
        self.ask_caps(label::TCBSetTimeoutEndpoint, [timeout_endpoint.bits()], [])
    }

    /// Clears and sets flags; the answer is the flags after it.
    pub fn tcb_set_flags(self, clear: Word, set: Word) -> Result<Word> {
        self.ask_words(label::TCBSetFlags, [clear, set])
    }

    /// Sets TPIDR_EL0.
    pub fn tcb_set_tls_base(self, tls_base: Word) -> Result<()> {
        self.ask_words(label::TCBSetTLSBase, [tls_base]).map(drop)
    }

    /// Lets a notification wake the thread from receiving on any endpoint.
    pub fn tcb_bind_notification(self, notification: Notification) -> Result<()> {
        self.ask_caps(label::TCBBindNotification, [notification.bits()], [])
    }

    /// Undoes [`Tcb::tcb_bind_notification`].
    pub fn tcb_unbind_notification(self) -> Result<()> {
        self.ask_plain(label::TCBUnbindNotification)
    }
}

impl<C: InvocationContext> SchedContext<C> {
    /// Takes the scheduling context from whoever has it.
    pub fn unbind(self) -> Result<()> {
        self.ask_plain(label::SchedContextUnbind)
    }
}

impl<C: InvocationContext> IrqHandler<C> {
    /// Lets the interrupt come again.
    pub fn irq_handler_ack(self) -> Result<()> {
        self.ask_plain(label::IRQAckIRQ)
    }

    /// Sets the notification that is signalled.
    pub fn irq_handler_set_notification(self, notification: Notification) -> Result<()> {
        self.ask_caps(label::IRQSetIRQHandler, [notification.bits()], [])
    }

    /// Takes the notification away.
    pub fn irq_handler_clear(self) -> Result<()> {
        self.ask_plain(label::IRQClearIRQHandler)
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Syscall, with_kernel};
    use crate::sys::{invocation_label as label, syscall};
    use crate::{Error, MessageInfo, UserContext, cap};

    const TCB: cap::Tcb = cap::Tcb::from_bits(202);

    fn answer(call: &mut Syscall<'_>, label: u64, length: usize) {
        call.x[0] = 0;
        call.x[1] = MessageInfo::new(label, 0, 0, length).bits();
    }

    #[test]
    fn write_registers_sends_38_words() {
        let mut context = UserContext::default();
        *context.pc_mut() = 0x4000_0000;
        *context.spsr_mut() = 0x3c5;
        *context.gpr_mut(0) = 7;
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!((call.number, call.x[0]), (syscall::CALL, 202));
            assert_eq!(call.x[1], MessageInfo::new(label::TCBWriteRegisters.into(), 0, 0, 38).bits());
            assert_eq!(call.x[2..6], [1, 36, 0x4000_0000, 0]);
            assert_eq!(call.ipc_buffer.as_ref().unwrap().msg_regs()[4..6], [0x3c5, 7]);
            answer(call, 0, 0);
        };
        with_kernel(kernel, || assert_eq!(TCB.tcb_write_all_registers(true, &mut context), Ok(())));
    }

    #[test]
    fn read_registers_takes_as_many_as_came() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[2..4], [0, 5]);
            answer(call, 0, 5);
            call.x[2..6].copy_from_slice(&[1, 2, 3, 4]);
            call.ipc_buffer.as_mut().unwrap().msg_regs_mut()[4..8].fill(5);
        };
        let context = with_kernel(kernel, || TCB.tcb_read_registers(false, 5)).unwrap();
        assert_eq!((*context.pc(), *context.sp(), *context.spsr()), (1, 2, 3));
        assert_eq!([0, 1, 2].map(|i| *context.gpr(i)), [4, 5, 0]);
    }

    #[test]
    fn refusals_become_errors() {
        for (number, error) in
            [(1, Error::InvalidArgument), (4, Error::RangeError), (99, Error::IllegalOperation)]
        {
            let kernel = move |call: &mut Syscall<'_>| answer(call, number, 0);
            with_kernel(kernel, || assert_eq!(TCB.tcb_resume(), Err(error)));
        }
    }

    #[test]
    fn capabilities_travel_beside_the_message() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[1], MessageInfo::new(label::TCBSetPriority.into(), 0, 1, 1).bits());
            assert_eq!(call.x[2], 99);
            assert_eq!(call.ipc_buffer.as_ref().unwrap().caps_or_badges()[0], 6);
            answer(call, 0, 0);
        };
        with_kernel(kernel, || assert_eq!(TCB.tcb_set_priority(cap::Tcb::from_bits(6), 99), Ok(())));
    }
}
